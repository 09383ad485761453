//! Bytes of the things Raft itself keeps: ballots and memberships.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use crate::pb;
use crate::types::{Membership, Node, Vote};

/// What the vote file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SavedVote {
    /// The last vote; `None` before the first.
    pub(crate) vote: Option<Vote>,
    /// This member may lack entries it acknowledged, see [`crate::standing`].
    pub(crate) recovering: bool,
}

/// Size of an encoded vote.
pub(crate) const VOTE_LEN: usize = 17;

const COMMITTED: u8 = 1;
const RECOVERING: u8 = 2;
const NO_VOTE: u8 = 4;

/// Encodes a vote for the vote file.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 8 | term, big-endian |
/// | 8 | 8 | candidate, big-endian |
/// | 16 | 1 | flags: 1 = a quorum granted it, 2 = recovering, 4 = there was no vote yet |
pub(crate) fn encode_vote(saved: &SavedVote) -> [u8; VOTE_LEN] {
    let mut bytes = [0; VOTE_LEN];
    bytes[16] = if saved.recovering { RECOVERING } else { 0 };
    match &saved.vote {
        None => bytes[16] |= NO_VOTE,
        Some(vote) => {
            bytes[..8].copy_from_slice(&vote.leader_id.term.to_be_bytes());
            bytes[8..16].copy_from_slice(&vote.leader_id.voted_for.to_be_bytes());
            bytes[16] |= if vote.committed { COMMITTED } else { 0 };
        }
    }
    bytes
}

/// Decodes what [`encode_vote`] made; `None` when it is something else.
pub(crate) fn decode_vote(bytes: &[u8]) -> Option<SavedVote> {
    let (term, rest) = bytes.split_first_chunk::<8>()?;
    let (candidate, rest) = rest.split_first_chunk::<8>()?;
    let [flags] = rest else { return None };
    if flags & !(COMMITTED | RECOVERING | NO_VOTE) != 0 {
        return None;
    }
    let (term, candidate) = (u64::from_be_bytes(*term), u64::from_be_bytes(*candidate));
    let vote = if flags & COMMITTED == 0 {
        Vote::new(term, candidate)
    } else {
        Vote::new_committed(term, candidate)
    };
    Some(SavedVote {
        vote: (flags & NO_VOTE == 0).then_some(vote),
        recovering: flags & RECOVERING != 0,
    })
}

/// Encodes a membership as the body of its entry. Equal memberships have equal bytes.
pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    pb::Membership {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| pb::membership::VoterSet {
                ids: set.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| pb::membership::Node {
                id: *id,
                address: node.addr.clone(),
            })
            .collect(),
    }
    .encode_to_vec()
}

/// The body of a membership entry that is none.
#[derive(Debug, thiserror::Error)]
#[error("malformed membership entry: {0}")]
pub(crate) struct MalformedMembership(String);

/// Decodes the body of a membership entry.
pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership, MalformedMembership> {
    let decoded =
        pb::Membership::decode(bytes).map_err(|error| MalformedMembership(error.to_string()))?;
    let voters: Vec<BTreeSet<u64>> = decoded
        .voters
        .into_iter()
        .map(|set| set.ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, Node> = decoded
        .nodes
        .into_iter()
        .map(|n| (n.id, Node { addr: n.address }))
        .collect();
    Membership::new(voters, nodes).map_err(|error| MalformedMembership(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn membership(addresses: &[(u64, &str)]) -> Membership {
        let nodes: BTreeMap<u64, Node> = addresses
            .iter()
            .map(|(id, a)| (*id, Node::new(a)))
            .collect();
        Membership::new(vec![nodes.keys().copied().collect()], nodes).unwrap()
    }

    /// The order in which members are named does not show in the bytes.
    #[test]
    fn membership_bytes_do_not_depend_on_order() {
        let one = membership(&[(0, "a:1"), (1, "b:1"), (2, "[::1]:1")]);
        let two = membership(&[(2, "[::1]:1"), (0, "a:1"), (1, "b:1")]);
        let bytes = encode_membership(&one);
        assert_eq!(bytes, encode_membership(&two));
        assert_eq!(decode_membership(&bytes).unwrap(), one);
    }

    /// A voter without an address is refused rather than met later.
    #[test]
    fn voter_without_address_is_refused() {
        let bytes = pb::Membership {
            voters: vec![pb::membership::VoterSet { ids: vec![1, 2] }],
            nodes: vec![pb::membership::Node {
                id: 1,
                address: "a:1".to_owned(),
            }],
        }
        .encode_to_vec();
        assert!(decode_membership(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn vote_round_trips(term: u64, candidate: u64, committed: bool, recovering: bool) {
            let vote = if committed {
                Vote::new_committed(term, candidate)
            } else {
                Vote::new(term, candidate)
            };
            for vote in [None, Some(vote)] {
                let saved = SavedVote { vote, recovering };
                prop_assert_eq!(decode_vote(&encode_vote(&saved)), Some(saved));
            }
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ignored = decode_vote(&bytes);
            let _ignored = decode_membership(&bytes);
        }
    }
}

//! Raft's own bytes for tools that work on a store while no member runs.

use crate::encoding::{SavedVote, decode_membership, decode_vote, encode_membership, encode_vote};
use crate::options::Peer;
use crate::types::{Membership, Node, Vote};

/// What a vote file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ballot {
    /// Term and candidate of the last vote, and whether a quorum is known to have granted it;
    /// `None` before the first vote.
    pub vote: Option<(u64, u64, bool)>,
    /// The member may lack entries that it acknowledged and does not vote until it has caught up.
    pub recovering: bool,
}

impl Ballot {
    /// Reads the content of a vote file; `None` when it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Ballot> {
        let saved = decode_vote(bytes)?;
        let vote = |vote: Vote| {
            (
                vote.leader_id.term,
                vote.leader_id.voted_for,
                vote.committed,
            )
        };
        Some(Ballot {
            vote: saved.vote.map(vote),
            recovering: saved.recovering,
        })
    }

    /// The content of a vote file.
    pub fn encode(&self) -> Vec<u8> {
        let vote = |(term, candidate, committed)| {
            if committed {
                Vote::new_committed(term, candidate)
            } else {
                Vote::new(term, candidate)
            }
        };
        let saved = SavedVote {
            vote: self.vote.map(vote),
            recovering: self.recovering,
        };
        encode_vote(&saved).to_vec()
    }
}

/// A member as a membership entry names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedMember {
    /// Its id.
    pub id: u64,
    /// `host:port`.
    pub address: String,
    /// Whether it has a vote.
    pub voter: bool,
}

/// Reads the body of a membership entry.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn members(body: &[u8]) -> Result<Vec<NamedMember>, String> {
    let membership = decode_membership(body).map_err(|error| error.to_string())?;
    let voter = |id: &u64| {
        let mut sets = membership.get_joint_config().iter();
        sets.any(|set| set.contains(id))
    };
    let member = |(id, node): (&u64, &Node)| NamedMember {
        id: *id,
        address: node.addr.clone(),
        voter: voter(id),
    };
    Ok(membership.nodes().map(member).collect())
}

/// The body of the membership entry that a group of these members begins with.
///
/// # Errors
/// A text that says why they can be no group.
pub fn first_membership(peers: &[Peer]) -> Result<Vec<u8>, String> {
    let node = |peer: &Peer| {
        let addr = peer.address();
        (peer.id, Node { addr })
    };
    let nodes: std::collections::BTreeMap<u64, Node> = peers.iter().map(node).collect();
    let voters = nodes.keys().copied().collect();
    let membership = Membership::new(vec![voters], nodes).map_err(|error| error.to_string())?;
    Ok(encode_membership(&membership))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballots_round_trip() {
        for vote in [None, Some((3, 1, false)), Some((9, 0, true))] {
            for recovering in [false, true] {
                let ballot = Ballot { vote, recovering };
                assert_eq!(Ballot::decode(&ballot.encode()), Some(ballot));
            }
        }
        assert_eq!(Ballot::decode(b"x"), None);
    }

    #[test]
    fn first_membership_names_all_as_voters() {
        let peer = |id| Peer {
            id,
            host: "::1".to_owned(),
            port: 40_911,
        };
        let body = first_membership(&[peer(0), peer(2)]).unwrap();
        let found = members(&body).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|m| m.voter && m.address == "[::1]:40911"));
        assert!(members(&[1, 2, 3]).is_err());
    }
}

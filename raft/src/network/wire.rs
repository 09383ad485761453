//! Between openraft's messages and those of `raft.proto`.

use bytes::Bytes;
use openraft::LogIdOptionExt;
use openraft::entry::RaftEntry;
use raftmq_store::StoredEntry;
use tonic::Status;

use crate::pb;
use crate::types::{
    AppendEntriesRequest, Entry, LogId, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, Vote, VoteRequest, VoteResponse,
};

pub(crate) fn to_log_id(id: &LogId) -> pb::LogId {
    pb::LogId {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub(crate) fn from_log_id(id: pb::LogId) -> LogId {
    LogId::new_term_index(id.term, id.index)
}

pub(crate) fn to_ballot(vote: &Vote) -> pb::Ballot {
    pb::Ballot {
        term: vote.leader_id.term,
        candidate: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn from_ballot(ballot: Option<pb::Ballot>) -> Result<Vote, Status> {
    let ballot = ballot.ok_or_else(|| Status::invalid_argument("the message names no ballot"))?;
    Ok(if ballot.committed {
        Vote::new_committed(ballot.term, ballot.candidate)
    } else {
        Vote::new(ballot.term, ballot.candidate)
    })
}

/// A vote of somebody who leads: only such a one may send entries or heartbeats.
fn from_leader(ballot: Option<pb::Ballot>) -> Result<Vote, Status> {
    let vote = from_ballot(ballot)?;
    if !vote.committed {
        return Err(Status::invalid_argument(
            "entries come from somebody who does not lead",
        ));
    }
    Ok(vote)
}

/// The request with the entries' stored bytes; nothing is copied.
pub(crate) fn to_append(request: &AppendEntriesRequest) -> pb::AppendRequest {
    let entries: Vec<Bytes> = request
        .entries
        .iter()
        .filter_map(Entry::raw)
        .cloned()
        .collect();
    // Entries for followers are always read from the log.
    debug_assert_eq!(entries.len(), request.entries.len());
    pb::AppendRequest {
        hello: None,
        leader: Some(to_ballot(&request.vote)),
        previous: request.prev_log_id.as_ref().map(to_log_id),
        commit: request.leader_commit.as_ref().map(to_log_id),
        entries,
    }
}

/// Checks and decodes entries as received: CRC, consecutive indexes, terms that do not fall and
/// are not newer than their sender's.
pub(crate) fn from_append(request: pb::AppendRequest) -> Result<AppendEntriesRequest, Status> {
    let vote = from_leader(request.leader)?;
    let prev_log_id = request.previous.map(from_log_id);
    let first_index = prev_log_id.next_index();
    let mut term = prev_log_id.map_or(0, |id| id.leader_id.term);
    let mut entries = Vec::with_capacity(request.entries.len());
    for (next_index, raw) in (first_index..).zip(request.entries) {
        let stored = StoredEntry::from_raw(raw)
            .map_err(|error| Status::data_loss(format!("entry {next_index}: {error}")))?;
        let id = stored.id;
        if id.index != next_index || id.term < term || id.term > vote.leader_id.term {
            return Err(Status::invalid_argument(format!(
                "entry {}.{} where index {next_index} of terms {term} to {} was due",
                id.term, id.index, vote.leader_id.term
            )));
        }
        term = id.term;
        let entry = Entry::stored(stored).map_err(|error| Status::data_loss(error.to_string()))?;
        debug_assert_eq!(entry.index(), id.index);
        entries.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit: request.commit.map(from_log_id),
    })
}

pub(crate) fn to_heartbeat(
    hello: pb::Hello,
    request: &AppendEntriesRequest,
) -> pb::HeartbeatRequest {
    pb::HeartbeatRequest {
        hello: Some(hello),
        leader: Some(to_ballot(&request.vote)),
        previous: request.prev_log_id.as_ref().map(to_log_id),
        commit: request.leader_commit.as_ref().map(to_log_id),
    }
}

pub(crate) fn from_heartbeat(
    request: pb::HeartbeatRequest,
) -> Result<AppendEntriesRequest, Status> {
    Ok(AppendEntriesRequest {
        vote: from_leader(request.leader)?,
        prev_log_id: request.previous.map(from_log_id),
        entries: Vec::new(),
        leader_commit: request.commit.map(from_log_id),
    })
}

pub(crate) fn to_append_reply(result: &StreamAppendResult, recovering: bool) -> pb::AppendReply {
    use pb::append_reply::{Accepted, Result};
    let result = match result {
        Ok(last) => Result::Accepted(Accepted {
            last: last.as_ref().map(to_log_id),
        }),
        Err(StreamAppendError::Conflict(at)) => Result::Conflict(to_log_id(at)),
        Err(StreamAppendError::HigherVote(vote)) => Result::Higher(to_ballot(vote)),
    };
    pb::AppendReply {
        result: Some(result),
        recovering,
    }
}

pub(crate) fn from_append_reply(reply: pb::AppendReply) -> Result<StreamAppendResult, Status> {
    use pb::append_reply::Result;
    Ok(match reply.result {
        Some(Result::Accepted(accepted)) => Ok(accepted.last.map(from_log_id)),
        Some(Result::Conflict(at)) => Err(StreamAppendError::Conflict(from_log_id(at))),
        Some(Result::Higher(ballot)) => {
            Err(StreamAppendError::HigherVote(from_ballot(Some(ballot))?))
        }
        None => return Err(Status::invalid_argument("empty answer to an append")),
    })
}

pub(crate) fn to_vote(hello: pb::Hello, request: &VoteRequest) -> pb::VoteRequest {
    pb::VoteRequest {
        hello: Some(hello),
        ballot: Some(to_ballot(&request.vote)),
        last: request.last_log_id.as_ref().map(to_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn from_vote(request: pb::VoteRequest) -> Result<VoteRequest, Status> {
    let vote = from_ballot(request.ballot)?;
    let mut decoded = VoteRequest::new(vote, request.last.map(from_log_id));
    decoded.leadership_transfer = request.leadership_transfer;
    Ok(decoded)
}

pub(crate) fn to_vote_reply(response: &VoteResponse) -> pb::VoteReply {
    pb::VoteReply {
        ballot: Some(to_ballot(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(to_log_id),
    }
}

pub(crate) fn from_vote_reply(reply: pb::VoteReply) -> Result<VoteResponse, Status> {
    Ok(VoteResponse::new(
        from_ballot(reply.ballot)?,
        reply.last.map(from_log_id),
        reply.granted,
    ))
}

pub(crate) fn to_transfer(
    hello: pb::Hello,
    request: &TransferLeaderRequest,
) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        hello: Some(hello),
        from_leader: Some(to_ballot(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(to_log_id),
    }
}

pub(crate) fn from_transfer(
    request: pb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest, Status> {
    let from = from_ballot(request.from_leader)?;
    Ok(TransferLeaderRequest::new(
        from,
        request.to,
        request.last.map(from_log_id),
    ))
}

pub(crate) fn to_transfer_reply(response: &TransferLeaderResponse) -> pb::TransferLeaderReply {
    use pb::transfer_leader_reply::{Accepted, NotFlushed, Result, VoteChanged};
    let result = match response {
        Ok(()) => Result::Accepted(Accepted {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Result::VoteChanged(VoteChanged {
                expected: Some(to_ballot(expected)),
                actual: Some(to_ballot(actual)),
            })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            Result::NotFlushed(NotFlushed {
                expected: expected.as_ref().map(to_log_id),
                actual: actual.as_ref().map(to_log_id),
            })
        }
    };
    pb::TransferLeaderReply {
        result: Some(result),
    }
}

pub(crate) fn from_transfer_reply(
    reply: pb::TransferLeaderReply,
) -> Result<TransferLeaderResponse, Status> {
    use pb::transfer_leader_reply::Result;
    Ok(match reply.result {
        Some(Result::Accepted(_)) => Ok(()),
        Some(Result::VoteChanged(changed)) => Err(TransferLeaderError::VoteChanged {
            expected: from_ballot(changed.expected)?,
            actual: from_ballot(changed.actual)?,
        }),
        Some(Result::NotFlushed(ids)) => Err(TransferLeaderError::LogNotFlushed {
            expected: ids.expected.map(from_log_id),
            actual: ids.actual.map(from_log_id),
        }),
        None => {
            return Err(Status::invalid_argument(
                "empty answer to a transfer of leadership",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use raftmq_store::{EntryKind, NewEntry};

    /// The stored bytes of entries 0.. with these terms.
    fn stored(terms: &[u64]) -> Vec<Bytes> {
        let log = crate::test_log();
        let entries = (0u64..).zip(terms).map(|(index, term)| NewEntry::Fresh {
            id: raftmq_store::LogId { term: *term, index },
            kind: EntryKind::Blank,
            command_len: 0,
            body: BytesMut::new(),
        });
        log.append(entries, Box::new(|_| {})).unwrap();
        let entries = log.read(0, terms.len() as u64, None).unwrap();
        entries.into_iter().map(|entry| entry.raw).collect()
    }

    fn request(term: u64, previous: Option<(u64, u64)>, entries: Vec<Bytes>) -> pb::AppendRequest {
        pb::AppendRequest {
            hello: None,
            leader: Some(pb::Ballot {
                term,
                candidate: 0,
                committed: true,
            }),
            previous: previous.map(|(term, index)| pb::LogId { term, index }),
            commit: None,
            entries,
        }
    }

    /// Entries arrive with the bytes they had, and only where they belong.
    #[test]
    fn entries_keep_their_bytes_and_their_order() {
        let raw = stored(&[0, 1, 1, 3]);
        let decoded = from_append(request(3, None, raw.clone())).unwrap();
        assert_eq!(decoded.entries.len(), 4);
        let again = to_append(&decoded);
        assert_eq!(again.entries, raw);
        // Not copied on the way either.
        assert_eq!(again.entries[1].as_ptr(), raw[1].as_ptr());

        let refused = |request| from_append(request).err().map(|status| status.code());
        let invalid = Some(tonic::Code::InvalidArgument);
        assert_eq!(refused(request(3, Some((1, 1)), raw[2..].to_vec())), None);
        assert_eq!(
            refused(request(3, Some((1, 2)), raw[2..].to_vec())),
            invalid,
            "a gap"
        );
        assert_eq!(
            refused(request(2, None, raw.clone())),
            invalid,
            "from the future"
        );
        assert_eq!(
            refused(request(3, Some((2, 1)), raw[2..].to_vec())),
            invalid,
            "a fallen term"
        );
        let mut candidate = request(3, None, raw.clone());
        candidate.leader = Some(pb::Ballot {
            term: 3,
            candidate: 0,
            committed: false,
        });
        assert_eq!(refused(candidate), invalid, "not a leader");
        let mut damaged = raw[0].to_vec();
        damaged[17] ^= 1;
        let damaged = request(3, None, vec![damaged.into()]);
        assert_eq!(refused(damaged), Some(tonic::Code::DataLoss));
    }

    proptest! {
        /// Whatever arrives is decoded or refused.
        #[test]
        fn any_bytes(
            term: u64,
            previous: Option<(u64, u64)>,
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            cut in 0usize..60,
        ) {
            let entry = stored(&[0]).remove(0);
            let cut = entry.slice(..cut.min(entry.len()));
            drop(from_append(request(term, previous, vec![bytes.into()])));
            drop(from_append(request(term, None, vec![cut, entry])));
        }
    }
}

//! The requests of this side that wait for their answer, by opaque.

use std::collections::HashMap;

use parking_lot::Mutex;
use raftmq_proto::frame::RemotingCommand;
use tokio::sync::oneshot;

/// In-flight table of one connection.
pub(crate) struct Pending {
    state: Mutex<State>,
}

struct State {
    /// `None` once the connection is closed: nothing may begin to wait any more.
    waiting: Option<HashMap<i32, oneshot::Sender<RemotingCommand>>>,
    last_opaque: i32,
}

/// Why a request cannot begin to wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Closed,
    Full(usize),
}

/// One request's place in the table. Dropping it gives the place up: a late answer is then ignored.
pub(crate) struct Ticket<'a> {
    table: &'a Pending,
    opaque: i32,
    answer: oneshot::Receiver<RemotingCommand>,
}

impl Pending {
    pub(crate) fn new() -> Self {
        let state = State {
            waiting: Some(HashMap::new()),
            last_opaque: 0,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Takes a place under an opaque that no other waiting request has.
    pub(crate) fn begin(&self, limit: usize) -> Result<Ticket<'_>, Refused> {
        let mut state = self.state.lock();
        let State {
            waiting,
            last_opaque,
        } = &mut *state;
        let waiting = waiting.as_mut().ok_or(Refused::Closed)?;
        if waiting.len() >= limit {
            return Err(Refused::Full(waiting.len()));
        }
        let opaque = loop {
            *last_opaque = last_opaque.wrapping_add(1);
            // After four thousand million requests an old one may still wait under this number.
            if !waiting.contains_key(last_opaque) {
                break *last_opaque;
            }
        };
        let (sender, answer) = oneshot::channel();
        waiting.insert(opaque, sender);
        Ok(Ticket {
            table: self,
            opaque,
            answer,
        })
    }

    /// An opaque for a request that expects no answer.
    pub(crate) fn unwaited_opaque(&self) -> i32 {
        let mut state = self.state.lock();
        state.last_opaque = state.last_opaque.wrapping_add(1);
        state.last_opaque
    }

    /// Hands an answer to who waits for it; false if nobody does (any more).
    pub(crate) fn complete(&self, answer: RemotingCommand) -> bool {
        let waiter = self
            .state
            .lock()
            .waiting
            .as_mut()
            .and_then(|all| all.remove(&answer.opaque));
        waiter.is_some_and(|waiter| waiter.send(answer).is_ok())
    }

    /// Fails everyone who waits, now and for ever.
    pub(crate) fn close(&self) {
        let waiting = self.state.lock().waiting.take();
        drop(waiting); // outside the lock: this wakes the waiters
    }

    /// How many requests wait.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiting.as_ref().map_or(0, HashMap::len)
    }
}

impl Ticket<'_> {
    pub(crate) fn opaque(&self) -> i32 {
        self.opaque
    }

    /// Waits for the answer; `None` when the connection was closed.
    pub(crate) async fn answer(&mut self) -> Option<RemotingCommand> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.table.state.lock().waiting.as_mut() {
            waiting.remove(&self.opaque);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(opaque: i32) -> RemotingCommand {
        let mut command = RemotingCommand::response(0, None);
        command.opaque = opaque;
        command
    }

    #[tokio::test]
    async fn answers_find_their_request_in_any_order() {
        let table = Pending::new();
        let (mut one, mut two) = (table.begin(8).unwrap(), table.begin(8).unwrap());
        assert!(table.complete(answer(two.opaque())));
        assert!(table.complete(answer(one.opaque())));
        assert_eq!(two.answer().await.unwrap().opaque, two.opaque());
        assert_eq!(one.answer().await.unwrap().opaque, one.opaque());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_given_up_request_leaves_no_entry_and_its_answer_is_ignored() {
        let table = Pending::new();
        let ticket = table.begin(8).unwrap();
        let opaque = ticket.opaque();
        assert_eq!(table.len(), 1);
        drop(ticket);
        assert_eq!(table.len(), 0);
        assert!(!table.complete(answer(opaque)));
    }

    #[test]
    fn the_table_is_bounded() {
        let table = Pending::new();
        let _held = [table.begin(2).unwrap(), table.begin(2).unwrap()];
        assert_eq!(table.begin(2).err(), Some(Refused::Full(2)));
    }

    #[test]
    fn opaques_in_use_are_skipped_after_a_wrap() {
        let table = Pending::new();
        let first = table.begin(8).unwrap();
        table.state.lock().last_opaque = first.opaque().wrapping_sub(1);
        let second = table.begin(8).unwrap();
        assert_ne!(second.opaque(), first.opaque());
        table.state.lock().last_opaque = i32::MAX;
        assert_eq!(table.begin(8).unwrap().opaque(), i32::MIN);
    }

    #[tokio::test]
    async fn closing_fails_everyone_who_waits() {
        let table = Pending::new();
        let mut waiting = table.begin(8).unwrap();
        table.close();
        assert!(waiting.answer().await.is_none());
        assert_eq!(table.begin(8).err(), Some(Refused::Closed));
    }
}

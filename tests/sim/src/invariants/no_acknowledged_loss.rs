//! What a producer was told is so: an acknowledged message is there once, at its offsets, behind all
//! that was acknowledged before it was sent; a refused one is nowhere; nobody's is nowhere too.

use raftmq_raft::Stored;
use raftmq_store::State;

use crate::history::{Check, GROUP, History, Outcome, QUEUES, TOPIC};
use crate::replay::Replay;
use crate::violation;

/// With each acknowledgement.
pub fn acknowledged(history: &mut History, attempt: u64, stored: &Stored) -> Check {
    let made = &history.attempts[attempt as usize];
    if made.above.is_some_and(|above| stored.queue_offset <= above) {
        return violation!(
            "no_acknowledged_loss",
            "attempt {attempt} was stored at {} although {:?} was acknowledged before it was sent",
            stored.queue_offset,
            made.above
        );
    }
    let last = stored.queue_offset + u64::from(made.count) - 1;
    let highest = &mut history.acknowledged[made.queue];
    *highest = (*highest).max(Some(last));
    Ok(())
}

/// With each read of a member that has just made sure that it leads.
pub fn read(member: usize, floor: &[Option<u64>; QUEUES], next: &[u64; QUEUES]) -> Check {
    for (queue, (floor, next)) in floor.iter().zip(next).enumerate() {
        if floor.is_some_and(|floor| *next <= floor) {
            return violation!(
                "no_acknowledged_loss",
                "n{member} vouched for its leadership, but queue {queue} ends at {next}, and \
                 {floor:?} was acknowledged"
            );
        }
    }
    Ok(())
}

/// At the end, on each member.
pub fn check(history: &History, member: usize, replay: &Replay, state: &State) -> Check {
    for (message, places) in &replay.places {
        let (attempt, nth) = *message;
        let known = usize::try_from(attempt).ok();
        let known = known.and_then(|attempt| history.attempts.get(attempt));
        let Some(known) = known.filter(|known| nth < known.count) else {
            return violation!(
                "no_acknowledged_loss",
                "n{member} has a phantom, {message:?}"
            );
        };
        if places.len() > 1 {
            return violation!(
                "no_acknowledged_loss",
                "n{member} has {message:?} more than once: {places:?}"
            );
        }
        if let Some(Outcome::Refused(error)) = &known.outcome {
            return violation!(
                "no_acknowledged_loss",
                "n{member} has {message:?} at {places:?}, which n{} refused: {error}",
                known.member
            );
        }
    }
    for (attempt, made) in history.attempts.iter().enumerate() {
        let Some(Outcome::Stored(stored)) = &made.outcome else {
            continue;
        };
        for nth in 0..made.count {
            let message = (attempt as u64, nth);
            let there = replay
                .places
                .get(&message)
                .and_then(|places| places.first());
            let offset = stored.queue_offset + u64::from(nth);
            let physical = stored.physical_offsets[nth as usize];
            let is_right = there.is_some_and(|place| {
                (place.queue, place.offset, place.physical_offset) == (made.queue, offset, physical)
            });
            if !is_right {
                return violation!(
                    "no_acknowledged_loss",
                    "n{member}: {message:?} was acknowledged by n{} in queue {} at {offset}, \
                     physical {physical}, but is {there:?}",
                    made.member,
                    made.queue
                );
            }
        }
    }
    for queue in 0..QUEUES {
        let (sent, saved) = (history.sent_offset[queue], history.saved_offset[queue]);
        let found = state.consumer_offset(GROUP, TOPIC, queue as i32);
        if saved > 0 && found.is_none_or(|found| found < saved || found > sent) {
            return violation!(
                "no_acknowledged_loss",
                "n{member} has consumer offset {found:?} of queue {queue}; {saved} was \
                 acknowledged, {sent} the last sent"
            );
        }
    }
    Ok(())
}

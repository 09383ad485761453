//! Queue offsets have no gap and no repetition, and the consume queues point at the right records.

use raftmq_proto::message::record::RecordRef;
use raftmq_store::State;

use crate::history::{Check, TOPIC};
use crate::replay::Replay;
use crate::violation;

pub fn check(member: usize, replay: &Replay, state: &State) -> Check {
    for (queue, messages) in replay.queues.iter().enumerate() {
        let bounds = state.queue_bounds(TOPIC, queue as i32);
        if (bounds.min, bounds.max) != (0, messages.len() as u64) {
            return violation!(
                "dense_offsets",
                "n{member}: queue {queue} is {bounds:?}, the log has {} messages for it",
                messages.len()
            );
        }
        let units = match state.units(TOPIC, queue as i32, 0, messages.len()) {
            Ok(units) if units.len() == messages.len() => units,
            Ok(units) => {
                return violation!(
                    "dense_offsets",
                    "n{member}: queue {queue} shows {} of {} messages",
                    units.len(),
                    messages.len()
                );
            }
            Err(error) => {
                return violation!("dense_offsets", "n{member}: queue {queue}: {error}");
            }
        };
        let mut time = 0;
        for (unit, (message, place)) in units.iter().zip(messages) {
            let bytes = state.record(unit);
            let offset = bytes.as_ref().ok().and_then(|bytes| {
                RecordRef::parse(bytes)
                    .ok()
                    .map(|record| record.queue_offset())
            });
            if unit.physical_offset != place.physical_offset || offset != Some(place.offset) {
                return violation!(
                    "dense_offsets",
                    "n{member}: queue {queue} has {unit:?} for {message:?} at {place:?}"
                );
            }
            if place.store_time < time {
                return violation!(
                    "dense_offsets",
                    "n{member}: queue {queue}: store time goes back to {} at {place:?}",
                    place.store_time
                );
            }
            time = place.store_time;
        }
    }
    Ok(())
}

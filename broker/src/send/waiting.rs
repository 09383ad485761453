//! Sends that wait for their entry to be applied.
//!
//! A leader that has lost its quorum without knowing it may never learn what becomes of an entry, so nobody may wait
//! for that without an end. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// Names a send in the table. A place that is used again has another generation, so that an outcome that comes late
/// finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    place: usize,
    generation: u64,
}

#[derive(Debug)]
struct Place<T> {
    generation: u64,
    waiting: Option<(Instant, T)>,
}

/// All sends that wait. What waits is bounded by what connections may have in flight.
#[derive(Debug)]
pub(crate) struct WaitingTable<T> {
    places: Vec<Place<T>>,
    free: Vec<usize>,
}

impl<T> Default for WaitingTable<T> {
    fn default() -> Self {
        WaitingTable {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> WaitingTable<T> {
    /// Takes a send in.
    pub(crate) fn insert(&mut self, since: Instant, send: T) -> Key {
        let waiting = Some((since, send));
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.places.push(Place {
                    generation: 0,
                    waiting: None,
                });
                self.places.len() - 1
            }
        };
        let slot = &mut self.places[place];
        slot.generation += 1;
        slot.waiting = waiting;
        Key {
            place,
            generation: slot.generation,
        }
    }

    /// Takes a send out, unless it was given up.
    pub(crate) fn take(&mut self, key: Key) -> Option<T> {
        let slot = self.places.get_mut(key.place)?;
        if slot.generation != key.generation {
            return None;
        }
        let (_, send) = slot.waiting.take()?;
        self.free.push(key.place);
        Some(send)
    }

    /// Whether a send has waited for `age` or longer.
    pub(crate) fn is_overdue(&self, now: Instant, age: Duration) -> bool {
        let mut waiting = self.places.iter().filter_map(|slot| slot.waiting.as_ref());
        waiting.any(|(since, _)| now.saturating_duration_since(*since) >= age)
    }

    /// Gives up the sends that have waited for `age` or longer.
    pub(crate) fn give_up(&mut self, now: Instant, age: Duration) -> Vec<T> {
        let mut given_up = Vec::new();
        for (place, slot) in self.places.iter_mut().enumerate() {
            let is_old =
                |(since, _): &mut (Instant, T)| now.saturating_duration_since(*since) >= age;
            if let Some((_, send)) = slot.waiting.take_if(is_old) {
                self.free.push(place);
                given_up.push(send);
            }
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_is_taken_once_and_a_late_outcome_finds_nothing() {
        let start = Instant::now();
        let later = start + Duration::from_secs(3);
        let mut table = WaitingTable::default();
        let old = table.insert(start, "old");
        let young = table.insert(later, "young");
        assert!(!table.is_overdue(start, Duration::from_secs(1)));
        assert!(table.is_overdue(later, Duration::from_secs(3)));
        assert_eq!(table.give_up(later, Duration::from_secs(3)), ["old"]);
        let again = table.insert(later, "again");
        assert_eq!(again.place, old.place);
        assert_eq!(table.take(old), None);
        assert_eq!(
            (table.take(again), table.take(again)),
            (Some("again"), None)
        );
        assert_eq!(table.take(young), Some("young"));
        assert_eq!((table.places.len(), table.free.len()), (2, 2));
    }
}

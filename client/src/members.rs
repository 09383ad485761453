//! The order in which the members of a broker group are tried. Pure: time comes as an argument.
//!
//! Normally there is one answer, the leader of the route. Around a failover the route is stale, and
//! any member will do, since a follower forwards to the leader it knows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a member that could not be reached is tried last. Long enough to spare each send of a
/// failover the dead member, short enough that a restarted one is used again soon.
const SUSPECT_FOR: Duration = Duration::from_secs(2);
/// Addresses remembered as suspect; a client sees a few groups of a few members.
const SUSPECTS_MAX: usize = 1024;

/// What attempts have taught about members, shared by everything that sends.
#[derive(Debug, Default)]
pub(crate) struct Experience {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Address → when it last failed.
    suspects: HashMap<String, Instant>,
    /// Broker name → the member that served while the route's leader did not, and the address which
    /// the route then gave for the leader: a new leader in the route ends the detour.
    detours: HashMap<String, Detour>,
}

#[derive(Clone, Debug)]
struct Detour {
    serving: String,
    instead_of: Option<String>,
}

impl Experience {
    /// Notes that `address` refused, was lost, or did not answer.
    pub(crate) fn failed(&self, address: &str, now: Instant) {
        let mut state = self.state.lock();
        if state.suspects.len() >= SUSPECTS_MAX {
            state
                .suspects
                .retain(|_, since| now.duration_since(*since) < SUSPECT_FOR);
        }
        if state.suspects.len() < SUSPECTS_MAX {
            state.suspects.insert(address.to_owned(), now);
        }
        state.detours.retain(|_, detour| detour.serving != address);
    }

    /// Notes that `address` answered for `broker_name`, whose leader is `leader` by the route.
    pub(crate) fn served(&self, broker_name: &str, address: &str, leader: Option<&str>) {
        let mut state = self.state.lock();
        if leader == Some(address) {
            if !state.suspects.is_empty() {
                state.suspects.remove(address);
            }
            if !state.detours.is_empty() {
                state.detours.remove(broker_name);
            }
            return;
        }
        state.suspects.remove(address);
        let detour = Detour {
            serving: address.to_owned(),
            instead_of: leader.map(ToOwned::to_owned),
        };
        state.detours.insert(broker_name.to_owned(), detour);
    }

    /// The addresses to try for a call that the member with `broker_id` should serve (0: the leader),
    /// best first: that member unless it is the leader, the detour in force, the leader, the others;
    /// and before all this, those that did not fail lately. `members` are the group's addresses by
    /// broker id.
    pub(crate) fn order(
        &self,
        broker_name: &str,
        members: &[(i64, String)],
        broker_id: i64,
        now: Instant,
    ) -> Vec<String> {
        let leader = members
            .iter()
            .find(|(id, _)| *id == 0)
            .map(|(_, address)| address);
        let mut state = self.state.lock();
        let detour = match state.detours.get(broker_name) {
            Some(detour) if detour.instead_of.as_ref() != leader => {
                state.detours.remove(broker_name);
                None
            }
            Some(detour) => Some(detour.serving.clone()),
            None => None,
        };
        let rank = |id: i64, address: &String| {
            let suspect = state
                .suspects
                .get(address)
                .is_some_and(|since| now.duration_since(*since) < SUSPECT_FOR);
            let choice = if id == broker_id && broker_id != 0 {
                0
            } else if detour.as_ref() == Some(address) {
                1
            } else if id == 0 {
                2
            } else {
                3
            };
            (suspect, choice, id)
        };
        let mut ranked: Vec<_> = members
            .iter()
            .map(|(id, address)| (rank(*id, address), address))
            .collect();
        ranked.sort();
        let mut order: Vec<String> = Vec::with_capacity(ranked.len());
        for (_, address) in ranked {
            if !order.contains(address) {
                order.push(address.clone());
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(entries: &[(i64, &str)]) -> Vec<(i64, String)> {
        entries
            .iter()
            .map(|(id, address)| (*id, (*address).to_owned()))
            .collect()
    }

    #[test]
    fn the_leader_comes_first() {
        let experience = Experience::default();
        let group = members(&[(0, "a"), (2, "b"), (3, "c")]);
        assert_eq!(
            experience.order("B", &group, 0, Instant::now()),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn a_failed_leader_comes_last_for_a_while() {
        let experience = Experience::default();
        let group = members(&[(0, "a"), (2, "b"), (3, "c")]);
        let start = Instant::now();
        experience.failed("a", start);
        assert_eq!(experience.order("B", &group, 0, start), ["b", "c", "a"]);
        assert_eq!(
            experience.order("B", &group, 0, start + SUSPECT_FOR),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn a_serving_follower_is_kept_until_the_route_names_a_new_leader() {
        let experience = Experience::default();
        let start = Instant::now();
        let before = members(&[(0, "a"), (2, "b"), (3, "c")]);
        experience.failed("a", start);
        experience.served("B", "c", Some("a"));
        assert_eq!(experience.order("B", &before, 0, start), ["c", "b", "a"]);
        let later = start + SUSPECT_FOR * 2;
        assert_eq!(experience.order("B", &before, 0, later), ["c", "a", "b"]);
        let after = members(&[(0, "b"), (1, "a"), (3, "c")]);
        assert_eq!(experience.order("B", &after, 0, later), ["b", "a", "c"]);
        // The detour is over for good, even should the old route come back.
        assert_eq!(experience.order("B", &before, 0, later), ["a", "b", "c"]);
    }

    #[test]
    fn a_failing_detour_ends() {
        let experience = Experience::default();
        let start = Instant::now();
        let group = members(&[(0, "a"), (2, "b"), (3, "c")]);
        experience.failed("a", start);
        experience.served("B", "b", Some("a"));
        experience.failed("b", start);
        assert_eq!(experience.order("B", &group, 0, start), ["c", "a", "b"]);
    }

    #[test]
    fn a_group_without_leader_still_has_members() {
        let experience = Experience::default();
        let group = members(&[(2, "b"), (3, "c")]);
        assert_eq!(experience.order("B", &group, 0, Instant::now()), ["b", "c"]);
        experience.served("B", "c", None);
        assert_eq!(experience.order("B", &group, 0, Instant::now()), ["c", "b"]);
    }

    #[test]
    fn reads_prefer_the_suggested_member() {
        let experience = Experience::default();
        let group = members(&[(0, "a"), (2, "b"), (3, "c")]);
        let now = Instant::now();
        assert_eq!(experience.order("B", &group, 3, now), ["c", "a", "b"]);
        assert_eq!(experience.order("B", &group, 9, now), ["a", "b", "c"]);
    }

    #[test]
    fn one_address_is_tried_once() {
        let experience = Experience::default();
        let group = members(&[(0, "a"), (1, "a"), (2, "b")]);
        assert_eq!(experience.order("B", &group, 0, Instant::now()), ["a", "b"]);
    }
}

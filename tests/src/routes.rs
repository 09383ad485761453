//! Watches what nameservers say about who leads: a client that asks for a route must not be sent to a member that is gone
//! or deposed for long.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::calls;
use crate::clock::Nanos;
use crate::cluster::{GROUP, leader_of};
use crate::figures::ms;
use crate::leadership::{Addresses, Reign};
use crate::wait::pause;
use crate::wire::Connection;

/// How often each nameserver is asked.
const EVERY: Duration = Duration::from_millis(50);

/// A route may be this old.
pub const LATE: Duration = Duration::from_millis(1_500);

/// What a nameserver said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Asked.
    pub called: Nanos,
    /// Answered.
    pub answered: Nanos,
    /// Who.
    pub nameserver: String,
    /// Whom it names as broker 0.
    pub leader: Option<String>,
}

/// What the harness did to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// When.
    pub at: Nanos,
    /// The member.
    pub address: String,
    /// Its process ended, or was started.
    pub alive: bool,
}

/// All there is to judge by.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// Answers, those of one nameserver in the order of time.
    pub told: Vec<Told>,
    /// In the order of time.
    pub facts: Vec<Fact>,
    /// Who led when.
    pub reigns: Vec<Reign>,
    /// The address that follows leadership, where there is one.
    pub endpoint: Option<String>,
}

/// Wrong answers of one nameserver in a row, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Which.
    pub nameserver: String,
    /// Whom it names.
    pub leader: String,
    /// What is wrong with that.
    pub why: String,
    /// How long that had been so at the last of these answers.
    pub late: Duration,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Complaint {
            nameserver,
            leader,
            why,
            late,
        } = self;
        write!(
            f,
            "nameserver {nameserver} names {leader} as the leader {} after {why}",
            ms(*late)
        )
    }
}

/// The judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Answers that were wrong for too long.
    pub complaints: Vec<Complaint>,
    /// The longest time that a wrong answer was given, allowed or not.
    pub longest: Duration,
    /// Answers.
    pub answers: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "routes: {} answers, a member that was gone or deposed named for {} at most",
            self.answers,
            ms(self.longest)
        )?;
        for complaint in &self.complaints {
            write!(f, "\n    {complaint}")?;
        }
        Ok(())
    }
}

impl Timeline {
    /// Complains about answers that name a member which was gone or deposed more than `late` before.
    pub fn judge(&self, late: Duration) -> Report {
        let mut report = Report {
            answers: self.told.len(),
            ..Report::default()
        };
        // The wrong answers under way, by nameserver.
        let mut open: BTreeMap<&str, Complaint> = BTreeMap::new();
        for told in &self.told {
            let wrong = told.leader.as_deref().and_then(|leader| {
                let (since, why) = self.wrong(told, leader)?;
                Some(Complaint {
                    nameserver: told.nameserver.clone(),
                    leader: leader.to_owned(),
                    why,
                    late: told.called.since(since),
                })
            });
            if let Some(wrong) = &wrong {
                report.longest = report.longest.max(wrong.late);
            }
            let wrong = wrong.filter(|wrong| wrong.late > late);
            let before = match wrong {
                Some(wrong) => {
                    let same =
                        |open: &Complaint| (&open.leader, &open.why) == (&wrong.leader, &wrong.why);
                    match open.get_mut(told.nameserver.as_str()) {
                        Some(open) if same(open) => {
                            *open = wrong;
                            None
                        }
                        _ => open.insert(&told.nameserver, wrong),
                    }
                }
                None => open.remove(told.nameserver.as_str()),
            };
            report.complaints.extend(before);
        }
        report.complaints.extend(open.into_values());
        report
    }

    /// Since when the answer has been wrong, and why. An answer is as old as its question at most.
    fn wrong(&self, told: &Told, leader: &str) -> Option<(Nanos, String)> {
        // Those that are known to have begun before the question; one that registers may not have been seen serving yet.
        let begun = self.reigns.iter().filter(|reign| reign.from <= told.called);
        let current = begun.max_by_key(|reign| reign.term);
        if Some(leader) == self.endpoint.as_deref() {
            // It is right as long as somebody leads who can listen there.
            let current = current?;
            let died = self.died(&current.leader, told.called)?;
            let next = self
                .reigns
                .iter()
                .any(|reign| reign.term > current.term && reign.from <= told.answered);
            let gone = died > current.from && !next;
            return gone.then(|| {
                (
                    died,
                    format!("{}, the last to lead, was gone", current.leader),
                )
            });
        }
        let dead = self.died(leader, told.called);
        if let Some(died) = dead {
            return Some((died, "it was gone".to_owned()));
        }
        let current = current?;
        let leads_again = self
            .reigns
            .iter()
            .any(|reign| reign.leader == leader && reign.term >= current.term);
        if leads_again {
            return None;
        }
        // Deposed by the first that came after its own last term.
        let own = self
            .reigns
            .iter()
            .filter(|reign| reign.leader == leader && reign.from <= told.called);
        let own = own.map(|reign| reign.term).max().unwrap_or(0);
        let next = self.reigns.iter().filter(|reign| reign.term > own);
        let next = next.min_by_key(|reign| reign.term)?;
        Some((
            next.from,
            format!("{} served in the higher term {}", next.leader, next.term),
        ))
    }

    /// When a member died that was not started again by `now`.
    fn died(&self, address: &str, now: Nanos) -> Option<Nanos> {
        let mut facts = self.facts.iter().rev();
        let last = facts.find(|fact| fact.address == address && fact.at <= now)?;
        (!last.alive).then_some(last.at)
    }
}

/// Asks nameservers again and again.
#[derive(Debug)]
pub struct RouteWatch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Timeline>>,
    threads: Vec<JoinHandle<()>>,
}

impl RouteWatch {
    /// Asks all of these nameservers, as often as they answer.
    pub fn start(nameservers: &[String], endpoint: Option<String>) -> RouteWatch {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Timeline {
            endpoint,
            ..Timeline::default()
        }));
        let watch = |nameserver: &String| {
            let (nameserver, stop, seen) =
                (nameserver.clone(), Arc::clone(&stop), Arc::clone(&seen));
            std::thread::spawn(move || ask(&nameserver, &stop, &seen))
        };
        RouteWatch {
            threads: nameservers.iter().map(watch).collect(),
            stop,
            seen,
        }
    }

    /// The harness ended this member's process at `at`.
    pub fn died(&self, address: &str, at: Nanos) {
        self.fact(address, at, false);
    }

    /// The harness is about to start this member.
    pub fn started(&self, address: &str) {
        self.fact(address, Nanos::now(), true);
    }

    fn fact(&self, address: &str, at: Nanos, alive: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let address = address.to_owned();
        seen.facts.push(Fact { at, address, alive });
    }

    /// Ends, and judges.
    pub fn stop(mut self, reigns: Vec<Reign>, late: Duration) -> Report {
        self.halt();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.reigns = reigns;
        seen.judge(late)
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there is a failed assertion of the harness itself, already printed.
            thread.join().ok();
        }
    }
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        self.halt();
    }
}

fn ask(nameserver: &str, stop: &AtomicBool, seen: &Mutex<Timeline>) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        connection = connection.or_else(|| Connection::open(nameserver).ok());
        match connection.as_mut().map(|open| told_by(open, nameserver)) {
            Some(Ok(told)) => {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.told.push(told);
            }
            // A nameserver that does not answer misleads nobody.
            _ => connection = None,
        }
        pause(EVERY);
    }
}

fn told_by(connection: &mut Connection, nameserver: &str) -> Result<Told> {
    let called = Nanos::now();
    let members = calls::group_addresses(connection, GROUP)?;
    Ok(Told {
        called,
        answered: Nanos::now(),
        nameserver: nameserver.to_owned(),
        leader: leader_of(&members).map(str::to_owned),
    })
}

/// Where clients that follow the route send to: the member that a nameserver names as broker 0, asked anew for each
/// connection. For brokers that forward nothing.
pub fn by_route(nameservers: Vec<String>) -> Addresses {
    Arc::new(move || {
        let named = nameservers.iter().find_map(|nameserver| {
            let mut connection = Connection::open(nameserver).ok()?;
            let members = calls::group_addresses(&mut connection, GROUP).ok()?;
            leader_of(&members).map(str::to_owned)
        });
        named.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in milliseconds; answers of one nameserver every 100 ms.
    fn timeline(
        answers: &[(u64, u64, &str)],
        facts: &[(u64, &str, bool)],
        reigns: &[(u64, &str, u64)],
    ) -> Timeline {
        let at = |time: u64| Nanos(time * 1_000_000);
        let told = answers.iter().flat_map(|(from, to, leader)| {
            (*from..*to).step_by(100).map(move |time| Told {
                called: at(time),
                answered: at(time + 1),
                nameserver: "ns".to_owned(),
                leader: (!leader.is_empty()).then(|| (*leader).to_owned()),
            })
        });
        Timeline {
            told: told.collect(),
            facts: facts
                .iter()
                .map(|(time, address, alive)| Fact {
                    at: at(*time),
                    address: (*address).to_owned(),
                    alive: *alive,
                })
                .collect(),
            reigns: reigns
                .iter()
                .map(|(term, leader, from)| Reign {
                    term: *term,
                    leader: (*leader).to_owned(),
                    from: at(*from),
                })
                .collect(),
            endpoint: Some("all".to_owned()),
        }
    }

    fn judge(timeline: &Timeline) -> Vec<String> {
        let report = timeline.judge(Duration::from_millis(1_500));
        report.complaints.iter().map(ToString::to_string).collect()
    }

    const REIGNS: &[(u64, &str, u64)] = &[(1, "a", 0), (2, "b", 5_000)];
    const KILLED: &[(u64, &str, bool)] = &[(4_500, "a", false)];

    #[test]
    fn a_route_that_follows_is_fine() {
        let followed = timeline(&[(0, 5_000, "a"), (5_000, 9_000, "b")], KILLED, REIGNS);
        let report = followed.judge(LATE);
        assert_eq!(report.complaints, []);
        assert_eq!(
            (report.longest, report.answers),
            (Duration::from_millis(400), 90)
        );
        let empty = timeline(
            &[(0, 4_500, "a"), (4_500, 7_000, ""), (7_000, 9_000, "b")],
            KILLED,
            REIGNS,
        );
        assert_eq!(judge(&empty), [""; 0]);
        // It may register before it was seen to serve.
        let early = timeline(&[(0, 4_600, "a"), (4_600, 9_000, "b")], KILLED, REIGNS);
        assert_eq!(judge(&early), [""; 0]);
    }

    #[test]
    fn a_dead_member_in_the_route_is_named_once() {
        let late = timeline(&[(0, 6_500, "a"), (6_500, 9_000, "b")], KILLED, REIGNS);
        assert_eq!(
            judge(&late),
            ["nameserver ns names a as the leader 1900 ms after it was gone"]
        );
        let never = timeline(&[(0, 9_000, "a")], KILLED, &REIGNS[..1]);
        assert_eq!(
            judge(&never),
            ["nameserver ns names a as the leader 4400 ms after it was gone"]
        );
    }

    #[test]
    fn a_deposed_member_in_the_route_is_found() {
        let late = timeline(&[(0, 7_000, "a"), (7_000, 9_000, "b")], &[], REIGNS);
        let found =
            "nameserver ns names a as the leader 1900 ms after b served in the higher term 2";
        assert_eq!(judge(&late), [found]);
        // Back to the old one.
        let back = timeline(
            &[
                (0, 5_100, "a"),
                (5_100, 7_000, "b"),
                (7_000, 7_100, "a"),
                (7_100, 9_000, "b"),
            ],
            &[],
            REIGNS,
        );
        let found =
            "nameserver ns names a as the leader 2000 ms after b served in the higher term 2";
        assert_eq!(judge(&back), [found]);
        // Elected once more.
        let again = timeline(
            &[(0, 5_100, "a"), (5_100, 7_000, "b"), (7_000, 9_000, "a")],
            &[],
            &[REIGNS[0], REIGNS[1], (3, "a", 6_900)],
        );
        assert_eq!(judge(&again), [""; 0]);
    }

    #[test]
    fn a_member_that_is_back_is_not_dead_but_deposed() {
        let facts = [(4_500, "a", false), (4_900, "a", true)];
        let late = timeline(&[(0, 9_000, "a")], &facts, REIGNS);
        let found =
            "nameserver ns names a as the leader 3900 ms after b served in the higher term 2";
        assert_eq!(judge(&late), [found]);
    }

    #[test]
    fn an_address_that_follows_leadership_is_right_while_somebody_leads() {
        let followed = timeline(&[(0, 9_000, "all")], KILLED, REIGNS);
        assert_eq!(judge(&followed), [""; 0]);
        let nobody = timeline(&[(0, 9_000, "all")], KILLED, &REIGNS[..1]);
        assert_eq!(
            judge(&nobody),
            ["nameserver ns names all as the leader 4400 ms after a, the last to lead, was gone"]
        );
        let gone = timeline(
            &[(0, 5_000, "all"), (5_000, 9_000, "")],
            KILLED,
            &REIGNS[..1],
        );
        assert_eq!(judge(&gone), [""; 0]);
    }
}

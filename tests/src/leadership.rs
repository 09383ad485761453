//! Who led when, as the members themselves said while it went on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::calls::{self, request};
use crate::clock::Nanos;
use crate::wait::pause;
use crate::wire::{Connection, Request};

/// Addresses of a group's members now; asked again and again, as members come and go.
pub type Addresses = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Members that stay the same.
pub fn fixed(addresses: Vec<String>) -> Addresses {
    Arc::new(move || addresses.clone())
}

/// How often each member is asked.
const EVERY: Duration = Duration::from_millis(50);
/// A member that is frozen or cut off gives no sign within this.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// What a member said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// When.
    pub answered: Nanos,
    /// Who.
    pub address: String,
    /// Its term.
    pub term: u64,
    /// Whether it leads and answers as the leader.
    pub serving: bool,
}

/// One leadership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    /// Its term; there is one leader in a term at most.
    pub term: u64,
    /// The leader's address.
    pub leader: String,
    /// It served from here on at the latest.
    pub from: Nanos,
}

/// Puts signs together; they may come from several members in any order, those of one member in the order of time.
#[derive(Debug, Default)]
pub struct Reigns {
    found: Vec<Reign>,
    /// The last sign of each member.
    last: Vec<Sign>,
}

impl Reigns {
    /// Adds a sign.
    pub fn add(&mut self, sign: Sign) {
        let place = self
            .last
            .iter()
            .position(|last| last.address == sign.address);
        let Some(place) = place else {
            self.last.push(sign);
            return;
        };
        let before = std::mem::replace(&mut self.last[place], sign.clone());
        // A member reads its term and its part one after the other: only what it says twice is so.
        if !(before.serving && sign.serving && before.term == sign.term) {
            return;
        }
        if self.found.iter().all(|reign| reign.term != sign.term) {
            self.found.push(Reign {
                term: sign.term,
                leader: sign.address,
                from: before.answered,
            });
        }
    }

    /// All so far, by term.
    pub fn sorted(&self) -> Vec<Reign> {
        let mut found = self.found.clone();
        found.sort_by_key(|reign| reign.term);
        found
    }
}

/// Asks every member again and again.
#[derive(Debug)]
pub struct Leadership {
    stop: Arc<AtomicBool>,
    reigns: Arc<Mutex<Reigns>>,
    asker: Option<JoinHandle<()>>,
}

impl Leadership {
    /// Begins. Nothing is known of leaders before.
    pub fn watch(members: Addresses) -> Leadership {
        let stop = Arc::new(AtomicBool::new(false));
        let reigns = Arc::new(Mutex::new(Reigns::default()));
        let asker = {
            let (stop, reigns) = (Arc::clone(&stop), Arc::clone(&reigns));
            std::thread::spawn(move || ask_all(&members, &stop, &reigns))
        };
        Leadership {
            stop,
            reigns,
            asker: Some(asker),
        }
    }

    /// All leaderships so far, by term.
    pub fn reigns(&self) -> Vec<Reign> {
        let reigns = self.reigns.lock().unwrap_or_else(PoisonError::into_inner);
        reigns.sorted()
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(asker) = self.asker.take() {
            // A panic there is a failed assertion of the harness itself, already printed.
            asker.join().ok();
        }
    }
}

/// One thread for each member, so that a frozen one delays no other.
fn ask_all(members: &Addresses, stop: &Arc<AtomicBool>, reigns: &Arc<Mutex<Reigns>>) {
    let mut asked = BTreeSet::new();
    let mut threads = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for address in members() {
            if asked.insert(address.clone()) {
                let (stop, reigns) = (Arc::clone(stop), Arc::clone(reigns));
                threads.push(std::thread::spawn(move || ask(&address, &stop, &reigns)));
            }
        }
        pause(EVERY);
    }
    for thread in threads {
        thread.join().ok();
    }
}

fn ask(address: &str, stop: &AtomicBool, reigns: &Mutex<Reigns>) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        connection = connection.or_else(|| Connection::open(address).ok());
        let sign = connection.as_mut().map(|open| sign_of(open, address));
        match sign {
            Some(Ok(sign)) => {
                let mut reigns = reigns.lock().unwrap_or_else(PoisonError::into_inner);
                reigns.add(sign);
            }
            // Not in step any more, or not there at all: from a new connection on.
            _ => connection = None,
        }
        pause(EVERY);
    }
}

fn sign_of(connection: &mut Connection, address: &str) -> Result<Sign> {
    let request = Request::new(request::GET_BROKER_RUNTIME_INFO);
    let reply = calls::call_within(connection, &request, ANSWER_WITHIN)?;
    let answered = Nanos::now();
    let body: Value = serde_json::from_slice(&reply.body).context("the runtime info")?;
    let text = |name: &str| {
        let text = body["table"][name].as_str();
        text.with_context(|| format!("the runtime info has no {name}"))
    };
    Ok(Sign {
        answered,
        address: address.to_owned(),
        term: text("raftTerm")?.parse().context("raftTerm")?,
        serving: text("brokerActive")? == "true",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(at: u64, who: &str, term: u64, serving: bool) -> Sign {
        Sign {
            answered: Nanos(at),
            address: who.to_owned(),
            term,
            serving,
        }
    }

    #[test]
    fn a_reign_begins_with_the_first_of_two_signs() {
        let mut reigns = Reigns::default();
        for sign in [
            sign(10, "a", 1, true),
            sign(11, "b", 1, false),
            sign(20, "a", 1, true),
            sign(30, "a", 1, true),
            // The former leader, which does not know yet, in between.
            sign(55, "b", 2, true),
            sign(60, "a", 1, true),
            sign(65, "b", 2, true),
            sign(70, "a", 2, false),
        ] {
            reigns.add(sign);
        }
        let reign = |term, leader: &str, from| Reign {
            term,
            leader: leader.to_owned(),
            from: Nanos(from),
        };
        assert_eq!(reigns.sorted(), [reign(1, "a", 10), reign(2, "b", 55)]);
    }

    /// A leader that is deposed between the two looks at itself would lead in a term that is another's.
    #[test]
    fn what_was_said_once_is_not_believed() {
        let mut reigns = Reigns::default();
        for sign in [
            sign(10, "a", 1, true),
            sign(20, "a", 2, true),
            sign(30, "a", 2, false),
        ] {
            reigns.add(sign);
        }
        assert_eq!(reigns.sorted(), []);
    }
}

//! Whether anybody can lead, as seen from this member.
//!
//! openraft names a leader until another one is elected, so the name alone does not say whether
//! that leader lives. This watches what is heard: a member that leads holds its lease, any other
//! hears its leader. Once neither is so the others are asked, and if too few of them answer to elect
//! anybody, nobody has to wait for an election that cannot come.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::confirm::is_quorum;
use crate::members::names;
use crate::network::Network;
use crate::role::{Lease, Role};
use crate::types::Raft;

/// Looks within one lease.
const LOOKS: u32 = 5;
/// Leases without a leader, after which elections have had their time.
const LEASES_MAX: u32 = 2;

/// What a member knows of a leader that can act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// This member leads and a quorum answers it; or it hears the leader it follows. Also said of a
    /// member that was removed from the group: it hears nobody and only forwards.
    Led,
    /// Nobody is heard to lead, and enough members answer to elect somebody.
    Electing,
    /// Nobody leads, and too few members answer to elect anybody.
    Lost(Arc<Loss>),
}

/// Why nobody can lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// When a leader was last heard or, by the leader, a quorum.
    pub since: Instant,
    /// Members with a vote; while members are changed, of the set that has no quorum.
    pub voters: BTreeSet<u64>,
    /// Those of them that answer, this member included.
    pub answering: BTreeSet<u64>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ids: &BTreeSet<u64>| match ids.is_empty() {
            true => "none".to_owned(),
            false => names(ids.iter().copied()),
        };
        write!(
            f,
            "no leader for {:.1} s: of the voters {} only {} can be reached from here, and {} are needed",
            self.since.elapsed().as_secs_f64(),
            list(&self.voters),
            list(&self.answering),
            self.voters.len() / 2 + 1,
        )
    }
}

/// Finds out, for as long as the Raft core runs.
pub(crate) struct Watch {
    pub(crate) group: String,
    pub(crate) id: u64,
    pub(crate) raft: Raft,
    pub(crate) network: Network,
    pub(crate) lease: Lease,
    /// When a leader was last heard.
    pub(crate) heard: Arc<Mutex<Instant>>,
    pub(crate) removed: watch::Receiver<bool>,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) contact: watch::Sender<Contact>,
}

impl Watch {
    pub(crate) async fn run(self) {
        // For one lease after the start it is taken for granted that somebody leads.
        let mut touched = Instant::now();
        let mut role = self.role.clone();
        // Its first look tells what is known at the start.
        loop {
            if self.raft.metrics().borrow_watched().running_state.is_err() {
                return;
            }
            self.look(&mut touched).await;
            // A leader that was just elected is known at once.
            tokio::select! {
                () = sleep(self.lease.length() / LOOKS) => {}
                changed = role.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    async fn look(&self, touched: &mut Instant) {
        if self.is_in_touch(touched) {
            return self.tell(Contact::Led);
        }
        // The others are asked while they may be electing; cut off from them, the answer takes
        // as long as an election.
        if *self.contact.borrow() == Contact::Led {
            self.tell(Contact::Electing);
        }
        let Some(answering) = self.ask(touched).await else {
            return self.tell(Contact::Led);
        };
        let mut configs = self.configs().into_iter();
        let lacking = configs.find(|voters| !is_quorum(std::slice::from_ref(voters), &answering));
        let Some(voters) = lacking else {
            return self.tell(Contact::Electing);
        };
        if touched.elapsed() >= self.lease.length() * LEASES_MAX {
            let answering = answering.intersection(&voters).copied().collect();
            self.tell(Contact::Lost(Arc::new(Loss {
                since: *touched,
                voters,
                answering,
            })));
        }
    }

    /// Who answers, this member included; `None` as soon as there is a leader.
    async fn ask(&self, touched: &mut Instant) -> Option<BTreeSet<u64>> {
        let mut answers = pin!(self.network.survey_others());
        let answers = loop {
            tokio::select! {
                answers = &mut answers => break answers,
                () = sleep(self.lease.length() / LOOKS) => if self.is_in_touch(touched) {
                    return None;
                }
            }
        };
        let answering = answers.into_iter().map(|(id, _)| id).chain([self.id]);
        (!self.is_in_touch(touched)).then(|| answering.collect())
    }

    /// Whether there is a leader; `touched` becomes the last time there was.
    fn is_in_touch(&self, touched: &mut Instant) -> bool {
        let now = Instant::now();
        let asked = match *self.removed.borrow() {
            true => Some(now),
            false => self.lease.age().and_then(|age| now.checked_sub(age)),
        };
        *touched = (*touched)
            .max(*self.heard.lock())
            .max(asked.unwrap_or(*touched));
        touched.elapsed() < self.lease.length()
    }

    /// The sets of voters that both have to agree; one, unless members are being changed.
    fn configs(&self) -> Vec<BTreeSet<u64>> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.get_joint_config();
        if configs.is_empty() {
            return vec![self.network.links.voters().into_iter().collect()];
        }
        configs.clone()
    }

    fn tell(&self, now: Contact) {
        let group = &self.group;
        self.contact.send_if_modified(|known| {
            match (&*known, &now) {
                (Contact::Lost(_), Contact::Lost(_)) => {}
                (_, Contact::Lost(loss)) => {
                    tracing::warn!(%group, member = self.id, "{loss}");
                }
                (Contact::Lost(loss), _) => {
                    let lasted = loss.since.elapsed();
                    tracing::info!(%group, member = self.id, ?lasted, "enough members answer again");
                }
                _ => {}
            }
            let changed = *known != now;
            *known = now.clone();
            changed
        });
    }
}

/// Returns why nobody can lead, once that is so.
pub(crate) async fn lost(mut contact: watch::Receiver<Contact>) -> Arc<Loss> {
    loop {
        if let Contact::Lost(loss) = &*contact.borrow_and_update() {
            return loss.clone();
        }
        if contact.changed().await.is_err() {
            // The Raft core has ended, which others report.
            sleep(Duration::MAX).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    #[test]
    fn says_who_answers_and_how_many_are_needed() {
        let loss = Loss {
            since: Instant::now(),
            voters: set(&[0, 1, 2]),
            answering: set(&[1]),
        };
        let text = loss.to_string();
        assert!(
            text.ends_with(
                "of the voters n0, n1, n2 only n1 can be reached from here, and 2 are needed"
            ),
            "{text}"
        );
        assert!(text.starts_with("no leader for 0.0 s"), "{text}");
    }
}

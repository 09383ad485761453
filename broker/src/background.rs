//! What runs beside requests for as long as a member does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use raftmq_raft::Group;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::NodeConfig;
use crate::parts::Parts;
use crate::runtime::spawn;
use crate::system;
use crate::time::now_ms;

/// How often counters are sampled.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// How often expired locks and counters of deleted topics are dropped.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// How often a leader that is not preferred looks whether a preferred member can lead.
const PREFER_PERIOD: Duration = Duration::from_secs(1);
/// Pause before missing system topics are made again after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

impl Parts {
    /// Starts what runs for as long as the member does.
    pub(crate) fn spawn_tasks(
        &self,
        group: &Group,
        node: &NodeConfig,
        made: watch::Sender<bool>,
    ) -> Vec<JoinHandle<()>> {
        vec![
            spawn(Arc::clone(&self.clients).run_expiry()),
            spawn(Arc::clone(&self.offsets).run_saving()),
            spawn(Arc::clone(&self.dispatch.sends).run_deadlines()),
            spawn(Arc::clone(&self.pulls).run_timeouts()),
            spawn(Arc::clone(&self.pulls).run_leader_changes()),
            spawn(self.sweep(group)),
            spawn(Arc::clone(&self.retention).run()),
            spawn(self.when_leading(group, node, made)),
            spawn(prefer(group.clone(), node.preferred_leaders.clone())),
        ]
    }

    fn sweep(&self, group: &Group) -> impl Future<Output = ()> + Send + 'static {
        let (stats, locks, group) = (
            Arc::clone(&self.stats),
            Arc::clone(&self.locks),
            group.clone(),
        );
        async move {
            let mut ticks = tokio::time::interval(SAMPLE_PERIOD);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut swept = Instant::now();
            loop {
                ticks.tick().await;
                let now = Instant::now();
                stats.sample(now, now_ms());
                if now.saturating_duration_since(swept) >= SWEEP_PERIOD {
                    swept = now;
                    locks.drop_expired().await;
                    stats.keep_topics(|topic| group.store().state.topic(topic).is_some());
                }
            }
        }
    }

    /// Each time this member becomes the leader: takes over the locks, makes what has to exist and does not. Each time it no
    /// longer is: leaves the locks to the new leader.
    fn when_leading(
        &self,
        group: &Group,
        node: &NodeConfig,
        made: watch::Sender<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (creator, clients, locks) = (
            self.creator.clone(),
            Arc::clone(&self.clients),
            Arc::clone(&self.locks),
        );
        let wanted = system::wanted(&self.names, &node.topics);
        let mut role = group.role();
        async move {
            loop {
                if role.wait_for(|role| role.serving).await.is_err() {
                    return;
                }
                locks.begin();
                while let Err(refusal) = creator.carry_out(wanted.clone()).await {
                    tracing::info!(remark = refusal.remark, "system topics not made yet");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    if !role.borrow().serving {
                        break;
                    }
                }
                made.send_replace(true);
                clients.make_missing().await;
                if role.wait_for(|role| !role.serving).await.is_err() {
                    return;
                }
                locks.end();
            }
        }
    }
}

/// Hands leadership to a preferred member, as soon as one can take it.
async fn prefer(group: Group, preferred: Vec<u64>) {
    if preferred.is_empty() || preferred.contains(&group.self_id()) {
        return;
    }
    let mut role = group.role();
    while role.wait_for(|role| role.serving).await.is_ok() {
        tokio::time::sleep(PREFER_PERIOD).await;
        for to in &preferred {
            if !role.borrow().serving {
                break;
            }
            // Sends are refused while leadership moves, so it must not be offered to a member that is gone.
            let answers =
                |silent: Option<Duration>| silent.is_some_and(|silent| silent < PREFER_PERIOD);
            if !group
                .progress()
                .iter()
                .any(|member| member.id == *to && answers(member.silent))
            {
                continue;
            }
            match group.transfer_leader(Some(*to)).await {
                Ok(leader) => tracing::info!(leader, "leadership handed to a preferred member"),
                Err(error) => tracing::debug!(to, %error, "preferred member cannot lead yet"),
            }
        }
    }
}

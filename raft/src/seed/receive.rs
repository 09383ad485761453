//! The member that is brought up.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use raftmq_store::disk::RealDisk;
use raftmq_store::{
    Error, LogBase, LogId, OwnLog, Poison, SeedFolder, Store, StoreOptions, VoteFile,
};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Pace;
use crate::log_storage::VoteKeeper;
use crate::network::{Identity, Links, Network, reserve, wire};
use crate::options::{GroupOptions, StartError};
use crate::pb;
use crate::types::store_log_id;

/// Pause after an attempt that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often progress, or the reason for the lack of it, is logged.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// A source that sends nothing for this long is given up.
const SILENCE: Duration = Duration::from_secs(15);
/// Entries by which a follower may be behind the leader and still be preferred as the source.
const CLOSE: u64 = 10_000;

/// Opens a member's store. One that cannot go on by itself, or has nothing while others have a long
/// log, is first brought up from another member, however long that takes.
///
/// # Errors
/// [`StartError::Open`] with what [`Store::open`] says.
pub async fn open_store(options: &GroupOptions, store: StoreOptions) -> Result<Store, StartError> {
    loop {
        let to_open = store.clone();
        match blocking(move || Store::open(to_open)).await? {
            Ok(store) => match better_seeded(options, &store).await {
                Some(why) => store.want_seed(&why)?,
                None => return Ok(store),
            },
            Err(error @ (Error::SeedWanted { .. } | Error::NeedsSeed { .. }))
                if options.peers.len() > 1 =>
            {
                tracing::warn!(group = %options.group, member = options.self_id, "{error}");
                bring_up(options.clone(), store.clone()).await?;
                tracing::info!(group = %options.group, member = options.self_id,
                    "everything is there: the member starts");
            }
            Err(Error::StateDamaged { path, what }) => {
                tracing::error!(group = %options.group, member = options.self_id,
                    path = %path.display(), "the state database is damaged and is built again: {what}");
                blocking(move || raftmq_store::seed::set_aside(&path)).await??;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Why a new store is to be seeded although the log might bring it all: the leader would send the log as fast as it goes, in
/// competition with its clients, while a seed comes at its own pace and mostly from a follower.
async fn better_seeded(options: &GroupOptions, store: &Store) -> Option<String> {
    let is_new = store.log.last().is_none() && store.log.purged().is_none();
    if !is_new || options.peers.len() < 2 {
        return None;
    }
    // Whoever has this member's port is this member, and is not to be confused with another process of its name. It must not
    // listen: the others of a new group, which ask as well, would wait for its answer.
    let _port = reserve(options.bind).await.ok()?;
    let answers = network(options).survey_others().await;
    let (source, _) = answers
        .iter()
        .find(|(_, reply)| is_complete(reply) && reply.log_end >= options.seed_from)?;
    Some(format!(
        "it is new, and n{source} has a log of more than {} bytes",
        options.seed_from
    ))
}

/// The way to the other members before the Raft core runs.
fn network(options: &GroupOptions) -> Network {
    let configured: HashMap<u64, String> = options
        .peers
        .iter()
        .map(|peer| (peer.id, peer.address()))
        .collect();
    Network {
        identity: Arc::new(Identity::new(options.group.clone(), options.self_id, None)),
        links: Arc::new(Links::new(options.self_id, configured)),
        appends_in_flight: options.appends_in_flight,
        raft: Arc::new(OnceLock::new()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|error| StartError::Store(format!("a task failed: {error}")))
}

/// Fetches until everything is there. Runs on a thread of its own, as half of the work waits for
/// the disk; dropping the future ends it.
async fn bring_up(options: GroupOptions, store: StoreOptions) -> Result<(), StartError> {
    let end = CancellationToken::new();
    let _ended_when_dropped = end.clone().drop_guard();
    let runtime = Handle::current();
    blocking(move || {
        runtime.block_on(async {
            let receiver = Receiver::new(options, store)?;
            match end.run_until_cancelled(receiver.run()).await {
                Some(outcome) => outcome,
                None => Ok(()),
            }
        })
    })
    .await?
}

struct Receiver {
    options: GroupOptions,
    folder: SeedFolder,
    network: Network,
    pace: Pace,
    told: Instant,
}

/// Why an attempt ended.
enum Stop {
    /// Another one may do better.
    Again(String),
    /// No attempt would: the disk here.
    Here(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Here(error)
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Stop::Again(crate::network::cause(&status))
    }
}

impl Receiver {
    fn new(options: GroupOptions, store: StoreOptions) -> Result<Self, StartError> {
        let folder = SeedFolder::open(&store)?;
        // Whatever this member acknowledged is given up here: it must not vote as if it had it.
        let vote = VoteFile::new(
            Arc::new(RealDisk),
            store.root.join("vote"),
            Poison::default(),
        );
        let vote = VoteKeeper::open_or_distrust(Arc::new(vote))
            .map_err(|error| StartError::Store(error.to_string()))?;
        vote.set_recovering(true)?;
        Ok(Receiver {
            pace: Pace::new(options.seed_rate_max),
            network: network(&options),
            options,
            folder,
            told: Instant::now(),
        })
    }

    async fn run(mut self) -> Result<(), StartError> {
        let mut said = None;
        loop {
            match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(Stop::Here(error)) => return Err(error.into()),
                Err(Stop::Again(why)) => {
                    let due = said.as_ref().is_none_or(|(text, at): &(String, Instant)| {
                        *text != why || at.elapsed() >= TELL_EVERY
                    });
                    if due {
                        tracing::warn!(group = %self.options.group, member = self.options.self_id,
                            "not brought up yet: {why}");
                        said = Some((why, Instant::now()));
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Stop> {
        let source = self.source().await?;
        let link = self.network.bulk(source);
        let begun = self.folder.begun()?;
        let request = pb::SeedBeginRequest {
            hello: Some(self.network.identity.hello(source)),
            seed: begun.unwrap_or_default(),
        };
        let plan = link.client()?.seed_begin(request).await?.into_inner();
        let goal = self.check(&plan)?;
        if begun != Some(plan.seed) {
            self.folder.begin(plan.seed)?;
        }
        let own = self
            .folder
            .own_log(goal.applied, plan.applied_crc, goal.base.next_index);
        if own == OwnLog::EndsBefore {
            self.folder.drop_own_log()?;
        }
        tracing::info!(group = %self.options.group, member = self.options.self_id, source,
            applied = %goal.applied, log_bytes = plan.applied_end - plan.log_start,
            keeps_own_log = own == OwnLog::Has, "fetching");
        for file in &plan.files {
            self.fetch_file(source, &plan, file).await?;
        }
        if own != OwnLog::Has {
            self.fetch_log(source, &plan, &goal).await?;
        }
        self.folder.exchange(own == OwnLog::Has)?;
        Ok(())
    }

    /// The member to fetch from: one that is up to date and has a good disk; a follower, if there
    /// is one, as the leader has enough to do.
    async fn source(&self) -> Result<u64, Stop> {
        let answers = self.network.survey_others().await;
        // Who belongs to the group now the configuration need not know.
        let newest = answers.iter().max_by_key(|(_, reply)| {
            let at = reply.membership_at;
            at.map_or(0, |at| at.index)
        });
        if let Some(membership) = newest.and_then(|(_, reply)| reply.membership.as_ref()) {
            for node in &membership.nodes {
                self.network.links.learn(node.id, &node.address);
            }
        }
        choose(answers)
            .ok_or_else(|| Stop::Again("no other member with a complete store answers".to_owned()))
    }

    fn check(&self, plan: &pb::SeedPlan) -> Result<Goal, Stop> {
        let wrong = |what: String| Err(Stop::Again(format!("the source's offer is wrong: {what}")));
        let ours = self.folder.segment_bytes();
        if plan.segment_bytes != ours {
            return wrong(format!(
                "its segments have {} bytes, the configuration here says \
                 mappedFileSizeCommitLog={ours}",
                plan.segment_bytes
            ));
        }
        let plain = |name: &str| {
            !name.is_empty()
                && name.len() <= 255
                && name != "."
                && name != ".."
                && !name.contains(['/', '\0'])
        };
        if let Some(file) = plan.files.iter().find(|file| !plain(&file.name)) {
            return wrong(format!("{:?} is no file name", file.name));
        }
        let Some(applied) = plan.applied else {
            return wrong("it names no entry".to_owned());
        };
        if plan.applied_end < plan.log_start || !plan.log_start.is_multiple_of(ours) {
            return wrong(format!(
                "a log from {} to {}",
                plan.log_start, plan.applied_end
            ));
        }
        let id = |id: pb::LogId| store_log_id(&wire::from_log_id(id));
        Ok(Goal {
            applied: id(applied),
            end: plan.applied_end,
            base: LogBase {
                position: plan.log_start,
                next_index: plan.first_index,
                prev: plan.previous.map(id),
                prev_crc: plan.previous_crc,
                genesis: plan.genesis,
            },
        })
    }

    async fn fetch_file(
        &mut self,
        source: u64,
        plan: &pb::SeedPlan,
        info: &pb::SeedFileInfo,
    ) -> Result<(), Stop> {
        let path = self.folder.state_dir().join(&info.name);
        let here = |action, error| Stop::Here(Error::file(action, &path, error));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| here("open", error))?;
        let size = |file: &std::fs::File| Ok::<u64, io::Error>(file.metadata()?.len());
        let mut offset = size(&file).map_err(|error| here("read", error))?;
        if offset > info.size {
            file.set_len(0).map_err(|error| here("cut", error))?;
            offset = 0;
        }
        if offset == info.size {
            return Ok(());
        }
        let request = pb::SeedFileRequest {
            hello: Some(self.network.identity.hello(source)),
            seed: plan.seed,
            name: info.name.clone(),
            offset,
        };
        let link = self.network.bulk(source);
        let mut stream = link.client()?.seed_file(request).await?.into_inner();
        while offset < info.size {
            let data = next(&mut stream).await?;
            if data.is_empty() || data.len() as u64 > info.size - offset {
                return Err(Stop::Again(format!("{} came in pieces", info.name)));
            }
            file.write_all_at(&data, offset)
                .map_err(|error| here("write", error))?;
            offset += data.len() as u64;
            self.pace.spend(data.len() as u64).await;
            self.tell(&info.name, offset, info.size);
        }
        Ok(())
    }

    async fn fetch_log(
        &mut self,
        source: u64,
        plan: &pb::SeedPlan,
        goal: &Goal,
    ) -> Result<(), Stop> {
        let mut refill = self.folder.refill(goal.base)?;
        if refill.position() > goal.end {
            // It was begun from a member that was further.
            drop(refill);
            self.folder.discard_log()?;
            refill = self.folder.refill(goal.base)?;
        }
        if refill.position() < goal.end {
            let request = pb::SeedLogRequest {
                hello: Some(self.network.identity.hello(source)),
                seed: plan.seed,
                position: refill.position(),
            };
            let link = self.network.bulk(source);
            let mut stream = link.client()?.seed_log(request).await?.into_inner();
            while refill.position() < goal.end {
                let data = next(&mut stream).await?;
                if data.is_empty() {
                    return Err(Stop::Again("the log came in pieces".to_owned()));
                }
                let before = refill.position();
                match refill.push(&data) {
                    Ok(()) => {}
                    Err(error @ (Error::Malformed { .. } | Error::Diverged { .. })) => {
                        drop(refill);
                        self.folder.discard_log()?;
                        return Err(Stop::Again(format!("what the source sent: {error}")));
                    }
                    Err(error) => return Err(error.into()),
                }
                self.pace.spend(refill.position() - before).await;
                self.tell("log", refill.position(), goal.end);
            }
        }
        if refill.last() != Some(goal.applied) || refill.position() != goal.end {
            let last = refill.last();
            drop(refill);
            self.folder.discard_log()?;
            return Err(Stop::Again(format!(
                "the log that came ends with {last:?}, the state with {}",
                goal.applied
            )));
        }
        refill.finish()?;
        Ok(())
    }

    fn tell(&mut self, what: &str, at: u64, end: u64) {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            tracing::info!(group = %self.options.group, member = self.options.self_id, what, at, end,
                "fetching");
        }
    }
}

/// Where the member will be.
struct Goal {
    applied: LogId,
    end: u64,
    base: LogBase,
}

/// The next piece, if it is what was sent.
async fn next(stream: &mut Streaming<pb::SeedChunk>) -> Result<bytes::Bytes, Stop> {
    let message = tokio::time::timeout(SILENCE, stream.message())
        .await
        .map_err(|_elapsed| Stop::Again("the source has stopped sending".to_owned()))??;
    let chunk = message.ok_or_else(|| Stop::Again("the source ended too early".to_owned()))?;
    if crc32c::crc32c(&chunk.data) != chunk.crc {
        return Err(Stop::Again("a piece arrived damaged".to_owned()));
    }
    Ok(chunk.data)
}

fn is_complete(reply: &pb::SurveyReply) -> bool {
    !reply.recovering && reply.applied.is_some()
}

fn choose(answers: Vec<(u64, pb::SurveyReply)>) -> Option<u64> {
    let applied = |reply: &pb::SurveyReply| reply.applied.map_or(0, |id| id.index);
    let furthest = answers.iter().map(|(_, reply)| applied(reply)).max()?;
    answers
        .iter()
        .filter(|(_, reply)| is_complete(reply))
        .min_by_key(|(_, reply)| {
            let behind = furthest - applied(reply);
            (reply.disk_trouble, behind > CLOSE, reply.leads, behind)
        })
        .map(|(member, _)| *member)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(applied: u64, leads: bool) -> pb::SurveyReply {
        pb::SurveyReply {
            applied: Some(pb::LogId {
                term: 1,
                index: applied,
            }),
            leads,
            ..pb::SurveyReply::default()
        }
    }

    #[test]
    fn a_follower_that_is_close_is_preferred_to_the_leader() {
        let close = vec![(0, reply(50_000, true)), (1, reply(49_000, false))];
        assert_eq!(choose(close), Some(1));
        let far = vec![(0, reply(50_000, true)), (1, reply(100, false))];
        assert_eq!(choose(far), Some(0));
        let recovering = pb::SurveyReply {
            recovering: true,
            ..reply(50_000, false)
        };
        assert_eq!(choose(vec![(1, recovering)]), None);
        assert_eq!(choose(Vec::new()), None);
    }
}

//! What other members get from this one's store: entries to mend with, and copies to be seeded from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message as _;
use raftmq_store::entry::Header;
use raftmq_store::{CommitLog, LogId, Store};
use tokio::sync::watch;
use tonic::Status;

use super::wire;
use crate::log_storage::READ_BYTES_MAX;
use crate::pb;
use crate::seed::Source;
use crate::types::log_id;

/// Most bytes of entries in one answer to a member that mends its log.
const FETCH_BYTES_MAX: u64 = READ_BYTES_MAX;

/// See the module's description.
pub(crate) struct Supply {
    store: Store,
    source: Arc<Source>,
    /// Why this member has to be started again, once it has.
    restart: watch::Sender<Option<Arc<str>>>,
    /// The disk here has no room for messages, or is too slow.
    disk_trouble: AtomicBool,
    leaving: AtomicBool,
}

impl Supply {
    pub(crate) fn new(store: Store, restart: watch::Sender<Option<Arc<str>>>) -> Self {
        Supply {
            source: Arc::new(Source::new(store.clone())),
            store,
            restart,
            disk_trouble: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    pub(crate) fn log(&self) -> &CommitLog {
        &self.store.log
    }

    /// True while a member fetches the log from here: its beginning should stay.
    pub(crate) fn holds_log(&self) -> bool {
        self.source.holds_log()
    }

    pub(crate) fn in_trouble(&self) -> bool {
        self.disk_trouble.load(Ordering::Relaxed)
    }

    pub(crate) fn set_disk_trouble(&self, trouble: bool) {
        self.disk_trouble.store(trouble, Ordering::Relaxed);
    }

    /// From now on nobody hands leadership to this member.
    pub(crate) fn set_leaving(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(crate) fn leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether so many bytes of entries can be appended here; an append that meets a full disk
    /// would end this member.
    pub(crate) fn require_room(&self, bytes: u64) -> Result<(), Status> {
        let room = self.store.log.has_room(bytes);
        let full = || Status::resource_exhausted("the disk of its commit log is full");
        room.then_some(()).ok_or_else(full)
    }

    /// What this member tells about itself; the caller adds what the Raft core knows.
    pub(crate) fn survey(&self, recovering: bool) -> pb::SurveyReply {
        let id = |id: LogId| wire::to_log_id(&log_id(id));
        let log = &self.store.log;
        let membership = self.store.state.membership();
        pb::SurveyReply {
            last: log.last().or_else(|| log.purged()).map(id),
            recovering,
            applied: self.store.state.applied().map(id),
            first_index: log.first_index(),
            disk_trouble: self.in_trouble(),
            leaving: self.leaving(),
            membership_at: membership.as_ref().map(|(at, _)| id(*at)),
            membership: membership.and_then(|(_, body)| pb::Membership::decode(&*body).ok()),
            log_end: log.end_position(),
            flushed: log.flushed_position(),
            ..pb::SurveyReply::default()
        }
    }

    /// The entries `first..next` as far as they are here.
    pub(crate) fn entries(
        &self,
        first: u64,
        next: u64,
        recovering: bool,
    ) -> BoxStream<'static, Result<pb::FetchReply, Status>> {
        let log = self.store.log.clone();
        let mut damage = log.holes();
        damage.retain(|hole| hole.first_index < next && first < hole.next_index);
        let greeting = pb::FetchReply {
            entries: Vec::new(),
            recovering,
            unflushed: !damage.is_empty() && damage.iter().all(|hole| !hole.flushed),
        };
        let entries = stream::try_unfold(first, move |first| {
            let log = log.clone();
            async move {
                let end = next.min(log.next_index());
                if first >= end || first < log.first_index() {
                    return Ok(None);
                }
                let entries = blocking(move || log.read(first, end, Some(FETCH_BYTES_MAX)))
                    .await?
                    .map_err(|error| Status::data_loss(error.to_string()))?;
                let entries: Vec<_> = entries.into_iter().map(|entry| entry.raw).collect();
                let after = first + entries.len() as u64;
                let reply = pb::FetchReply {
                    entries,
                    recovering,
                    unflushed: false,
                };
                Ok((!reply.entries.is_empty()).then_some((reply, after)))
            }
        });
        stream::once(std::future::ready(Ok(greeting)))
            .chain(entries)
            .boxed()
    }

    /// The leader says that this member must be seeded up to `wanted`. True if it has that entry;
    /// otherwise it will be taken down, seeded and started again.
    pub(crate) async fn reseed(&self, wanted: LogId) -> Result<bool, Status> {
        let store = self.store.clone();
        let have = move || {
            let log = &store.log;
            if log.purged() >= Some(wanted) {
                return Ok(true);
            }
            let range = log.first_index()..log.next_index();
            if range.contains(&wanted.index) {
                let found = log.read(wanted.index, wanted.index + 1, None)?;
                if found.first().is_some_and(|entry| entry.id == wanted) {
                    return Ok(true);
                }
            }
            let why = format!(
                "the others' logs begin after entry {:?}, the last one here; up to {wanted} it \
                 has to be fetched",
                log.last()
            );
            store.want_seed(&why).map(|()| false)
        };
        let have = blocking(have)
            .await?
            .map_err(|error| Status::internal(error.to_string()))?;
        if !have {
            self.ask_restart("it has to be seeded from another member");
        }
        Ok(have)
    }

    /// Has the member taken down and started again. The first reason counts.
    pub(crate) fn ask_restart(&self, why: &str) {
        self.restart.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(|| why.into());
            first
        });
    }

    pub(crate) async fn begin_seed(&self, wanted: u64) -> Result<pb::SeedPlan, Status> {
        let source = self.source.clone();
        blocking(move || source.begin(wanted)).await?
    }

    pub(crate) fn seed_file(
        &self,
        request: pb::SeedFileRequest,
    ) -> BoxStream<'static, Result<pb::SeedChunk, Status>> {
        let state = (self.source.clone(), request);
        stream::try_unfold(
            state,
            |(source, request): (_, pb::SeedFileRequest)| async move {
                let reader = source.clone();
                let (chunk, request) = blocking(move || {
                    let mut request = request;
                    let chunk = reader.file(request.seed, &request.name, request.offset);
                    let size = chunk.as_ref().map_or(0, |chunk| chunk.data.len());
                    request.offset += size as u64;
                    (chunk, request)
                })
                .await?;
                let chunk = chunk?;
                Ok((!chunk.data.is_empty()).then_some((chunk, (source, request))))
            },
        )
        .boxed()
    }

    pub(crate) fn seed_log(
        &self,
        seed: u64,
        position: u64,
    ) -> BoxStream<'static, Result<pb::SeedChunk, Status>> {
        let state = (self.source.clone(), position);
        stream::try_unfold(state, move |(source, position)| async move {
            let reader = source.clone();
            let chunk = blocking(move || reader.log(seed, position)).await??;
            // The data begins with an entry; the end of a segment may have been skipped.
            let begin = Header::decode(&chunk.data).map_or(position, |first| first.position);
            let after = begin + chunk.data.len() as u64;
            Ok((!chunk.data.is_empty()).then_some((chunk, (source, after))))
        })
        .boxed()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    crate::blocking::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(format!("a task failed: {error}")))
}

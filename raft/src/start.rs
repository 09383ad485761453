//! Putting a member together, on the Raft runtime.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use raftmq_store::Store;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::confirm::Confirm;
use crate::contact::{self, Contact};
use crate::group::Inner;
use crate::log_storage::{LogStorage, VoteKeeper};
use crate::members::{Members, Removal, finish_changes};
use crate::mend::Mender;
use crate::network::{
    ForwardHandler, Forwarder, Identity, Links, Network, Place, ServerParts, Supply, listen, serve,
};
use crate::offline::NamedMember;
use crate::options::{GroupOptions, StartError};
use crate::proposer::Proposer;
use crate::role::{Follow, Lease, Role, follow, set_fatal};
use crate::standing::{Settle, Standing};
use crate::state_machine::StateMachine;
use crate::succession::Succession;
use crate::transfer::Transfer;
use crate::types::Raft;
use crate::upkeep::{ScrubStats, Scrubber, Upkeep};

/// Requests one connection may have under way beside forwarded ones.
const STREAMS_SPARE: usize = 64;

/// Builds everything, on the Raft runtime.
pub(crate) async fn start(
    options: GroupOptions,
    config: Arc<openraft::Config>,
    store: Store,
    forward: Arc<dyn ForwardHandler>,
    caller: Handle,
) -> Result<Inner, StartError> {
    let bind = |source| StartError::Bind {
        address: options.bind,
        source,
    };
    let listener = listen(options.bind).await.map_err(bind)?;
    let local = listener.local_addr().map_err(bind)?;

    let storage = |error: &dyn std::fmt::Display| StartError::Store(error.to_string());
    let vote = VoteKeeper::open_or_distrust(store.vote.clone()).map_err(|error| storage(&error))?;
    let vote = Arc::new(vote);
    let identity = Arc::new(Identity::new(
        options.group.clone(),
        options.self_id,
        Some(store.log.clone()),
    ));
    let configured: HashMap<u64, String> = options
        .peers
        .iter()
        .map(|peer| (peer.id, peer.address()))
        .collect();
    let links = Arc::new(Links::new(options.self_id, configured));
    if let Some((_, body)) = store.state.membership() {
        // As of the last cut of the state; the rest comes with the log.
        let members = crate::offline::members(&body).map_err(|error| storage(&error))?;
        let place = |member: NamedMember| {
            let (address, voter) = (member.address, member.voter);
            (member.id, Place { address, voter })
        };
        links.set_members(members.into_iter().map(place).collect());
    }
    let standing = Standing::at_start(&options, &store, &vote);
    if standing == Standing::Recovering {
        // Before anything that may take long: a start that ends halfway must not make the next one forget it.
        vote.set_recovering(true).map_err(|error| storage(&error))?;
    }
    store.forgetting_noted().map_err(|error| storage(&error))?;
    let network = Network {
        identity: identity.clone(),
        links: links.clone(),
        appends_in_flight: options.appends_in_flight,
        raft: Arc::new(OnceLock::new()),
    };
    let (standing_tell, standing_seen) = watch::channel(standing);
    let heard = Arc::new(Mutex::new(Instant::now()));
    let stream_ended = Arc::new(Notify::new());
    let (restart_tell, restart) = watch::channel(None);
    let supply = Arc::new(Supply::new(store.clone(), restart_tell));
    let forwarder = Arc::new(Forwarder::new(
        identity.clone(),
        links.clone(),
        forward,
        caller,
        options.forward_max,
    ));
    let streams_max = u32::try_from(options.forward_max + STREAMS_SPARE).unwrap_or(u32::MAX);
    let proposer_set = Arc::new(OnceLock::new());
    let server = ServerParts {
        raft: network.raft.clone(),
        proposer: proposer_set.clone(),
        identity,
        forwarder: forwarder.clone(),
        supply: supply.clone(),
        standing: standing_seen.clone(),
        heard: heard.clone(),
        stream_ended: stream_ended.clone(),
        streams_max,
    };
    let server = tokio::spawn(async move {
        if let Err(error) = serve(listener, server).await {
            tracing::error!(%error, "the port for other members is closed");
        }
    });
    // From here on others can be helped; this member itself may need help first.
    let mender = Mender {
        options: options.clone(),
        store: store.clone(),
        network: network.clone(),
    };
    let damaged = Arc::new(Notify::new());
    let tell_damage = damaged.clone();
    store.log.on_hole(move |_| tell_damage.notify_one());

    let (raft, applied_term_seen) = loop {
        mender.run(true).await.map_err(|reason| storage(&reason))?;
        let log_storage = LogStorage::new(
            store.log.clone(),
            store.state.clone(),
            store.committed.clone(),
            vote.clone(),
        );
        let (applied_term, applied_term_seen) = watch::channel(0);
        let state_machine = StateMachine::new(store.state.clone(), applied_term);
        // Applies what was committed before; the core starts with `run`.
        let built = Raft::build(
            options.self_id,
            config.clone(),
            network.clone(),
            log_storage,
            state_machine,
        );
        match built.await {
            Ok(raft) => break (raft, applied_term_seen),
            // It met damage that opening the log had passed by: an earlier start had found it, and
            // ended before it was mended.
            Err(_) if !store.log.holes().is_empty() => {}
            Err(error) => return Err(storage(&error)),
        }
    };
    network.raft.get_or_init(|| raft.clone());
    raft.runtime_config()
        .elect(standing.votes_for(store.log.last()));

    let (role_tell, role) = watch::channel(Role::UNKNOWN);
    let (fatal_tell, fatal) = watch::channel(None);
    let poisoned = fatal_tell.clone();
    store.on_poison(move |reason| set_fatal(&poisoned, reason));
    let closing = Arc::new(AtomicBool::new(false));
    let lease = Lease::new(options.self_id, options.election_max, &raft);
    let parts = (store.log.clone(), store.state.clone());
    let (proposer, proposer_handle) = Proposer::new(
        &options,
        raft.clone(),
        parts,
        lease.clone(),
        role.clone(),
        fatal.clone(),
    );
    drop(proposer_set.set(proposer_handle.clone()));
    let transfer = Transfer::new(
        options.clone(),
        raft.clone(),
        network.clone(),
        store.log.clone(),
        role.clone(),
    );
    let scrub_stats = Arc::new(ScrubStats::default());
    let scrubber = Scrubber::start(store.clone(), options.scrub_rate, scrub_stats.clone())
        .map_err(StartError::Threads)?;
    // Whoever finds it: a reader or the scrub.
    let tell_state_damage = Arc::downgrade(&supply);
    store.state.on_damage(move |what| {
        tracing::error!(what, "the state database is damaged: it is built again");
        if let Some(supply) = tell_state_damage.upgrade() {
            supply.ask_restart("its state database is damaged");
        }
    });

    let (confirm, questions) = Confirm::new(
        options.self_id,
        raft.clone(),
        store.state.clone(),
        network.clone(),
        role.clone(),
        options.election_max,
    );

    raft.run();
    tokio::spawn(proposer.run());
    tokio::spawn(confirm.run());
    tokio::spawn(follow(Follow {
        id: options.self_id,
        group: options.group.clone(),
        raft: raft.clone(),
        links,
        configured: options.nodes(),
        applied_term: applied_term_seen,
        role: role_tell,
        fatal: fatal_tell,
        closing: closing.clone(),
    }));
    let settle = Settle {
        options: options.clone(),
        raft: raft.clone(),
        store: store.clone(),
        network: network.clone(),
        vote,
        standing: standing_tell,
    };
    tokio::spawn(settle.run());
    let (removed_tell, removed) = watch::channel(false);
    let succession = Succession {
        self_id: options.self_id,
        raft: raft.clone(),
        lease: options.election_max,
        heard: heard.clone(),
        stream_ended,
        standing: standing_seen.clone(),
        removed: removed.clone(),
        supply: supply.clone(),
    };
    tokio::spawn(succession.run());
    let removal = Removal {
        options: options.clone(),
        raft: raft.clone(),
        store: store.clone(),
        network: network.clone(),
        heard: heard.clone(),
        supply: supply.clone(),
        standing: standing_seen.clone(),
        removed: removed_tell,
    };
    tokio::spawn(removal.run());
    let (contact_tell, contact) = watch::channel(Contact::Electing);
    let watch = contact::Watch {
        group: options.group.clone(),
        id: options.self_id,
        raft: raft.clone(),
        network: network.clone(),
        lease: lease.clone(),
        heard,
        removed: removed.clone(),
        role: role.clone(),
        contact: contact_tell,
    };
    tokio::spawn(watch.run());
    let members = Members {
        options: options.clone(),
        raft: raft.clone(),
        store: store.clone(),
        network: network.clone(),
        transfer: transfer.clone(),
        one: tokio::sync::Mutex::new(()),
    };
    let members = Arc::new(members);
    tokio::spawn(finish_changes(members.clone(), role.clone()));
    let (disk_tell, disk_trouble) = watch::channel(None);
    let upkeep = Upkeep {
        raft: raft.clone(),
        store: store.clone(),
        supply: supply.clone(),
        mender,
        transfer: transfer.clone(),
        flush_stall_max: options.flush_stall_max,
    };
    tokio::spawn(upkeep.run(damaged, disk_tell));
    tracing::info!(group = %options.group, member = options.self_id, %local, "member started");
    Ok(Inner {
        options,
        raft,
        store,
        forwarder,
        supply,
        proposer: proposer_handle,
        role,
        lease,
        contact,
        questions,
        fatal,
        standing: standing_seen,
        restart,
        disk_trouble,
        transfer,
        members,
        removed,
        scrubber,
        scrub_stats,
        local,
        server,
        closing,
        runtime: Mutex::new(None),
    })
}

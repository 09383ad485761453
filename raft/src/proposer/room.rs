//! What is still proposed when the disk of the commit log runs full.
//!
//! Messages stop first. Saved offsets, topics, and above all what gives room back go on with what
//! was kept for them, and the last part is for new leaders' first entries, which nobody refuses.

use raftmq_store::CommitLog;

use super::batch::Item;
use super::submission::ProposeError;

/// Room left for new leaders' first entries.
const ENTRIES_SPARE: u64 = 1024 * 1024;
/// Room that messages leave to operations: many minutes of saved offsets.
const OPS_SPARE: u64 = 8 * 1024 * 1024;

/// Refuses the items that there is no room for and returns the others, in their order.
pub(super) fn keep_what_fits(log: &CommitLog, items: Vec<Item>) -> Vec<Item> {
    let needs = |items: &[Item]| items.iter().map(Item::len).sum::<usize>() as u64;
    let Err(why) = log.takes_messages(needs(&items) + OPS_SPARE + ENTRIES_SPARE) else {
        return items;
    };
    let (messages, ops): (Vec<_>, Vec<_>) = items
        .into_iter()
        .partition(|item| matches!(item, Item::Messages(_)));
    refuse(messages, || ProposeError::DiskFull { what: why.clone() });
    if log.has_room(needs(&ops) + ENTRIES_SPARE) {
        return ops;
    }
    refuse(ops, || ProposeError::DiskFull {
        what: log.no_room(),
    });
    Vec::new()
}

fn refuse(items: Vec<Item>, why: impl Fn() -> ProposeError) {
    for item in items {
        item.refuse(why());
    }
}

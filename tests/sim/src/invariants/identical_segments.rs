//! The segment files of all members are equal, byte for byte, and so is what they mean.

use std::path::Path;

use raftmq_store::disk::{Disk, MemoryDisk};
use raftmq_store::{CommitLog, State};

use crate::history::Check;
use crate::violation;

fn segments(disk: &MemoryDisk, log: &CommitLog) -> Vec<(String, Vec<u8>)> {
    let dir: &Path = &log.options().dir;
    let mut names = disk.list(dir).unwrap_or_default();
    names.retain(|name| name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit()));
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let content = disk.content(&dir.join(&name)).unwrap_or_default();
            (name, content)
        })
        .collect()
}

pub fn check(members: &[(usize, &MemoryDisk, &CommitLog, &State)]) -> Check {
    let Some(((first, disk, log, state), others)) = members.split_first() else {
        return Ok(());
    };
    let expected = segments(disk, log);
    let digest = state.digest_parts().map_err(|error| error.to_string());
    for (other, disk, log, state) in others {
        let found = segments(disk, log);
        for (one, two) in expected.iter().zip(&found) {
            if one != two {
                let at = one.1.iter().zip(&two.1).position(|(a, b)| a != b);
                return violation!(
                    "identical_segments",
                    "n{first} and n{other} differ in {} and {}, first at {at:?}; the logs end at {}",
                    one.0,
                    two.0,
                    log.end_position()
                );
            }
        }
        if expected.len() != found.len() {
            return violation!(
                "identical_segments",
                "n{first} has {} segments, n{other} {}",
                expected.len(),
                found.len()
            );
        }
        let found = state.digest_parts().map_err(|error| error.to_string());
        if found != digest {
            return violation!(
                "identical_segments",
                "the states differ: n{first} {digest:?}, n{other} {found:?}"
            );
        }
    }
    Ok(())
}

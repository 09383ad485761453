//! How much may wait to be proposed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::submission::ProposeError;

/// Bounds of the queue in front of the proposer.
pub(super) struct Admission {
    count_max: usize,
    bytes_max: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place in the queue; given back when dropped.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    pub(super) fn new(count_max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Admission {
            count_max,
            bytes_max,
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        })
    }

    /// Takes a place for a submission of so many bytes. One that is larger than the whole queue
    /// may still wait alone.
    pub(super) fn admit(self: &Arc<Self>, bytes: usize) -> Result<Admitted, ProposeError> {
        let place = Admitted {
            admission: self.clone(),
            bytes,
        };
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before >= self.count_max {
            return Err(ProposeError::Busy {
                what: "submissions waiting to be proposed",
                value: before as u64 + 1,
                limit: self.count_max as u64,
                key: "raftQueueCountMax",
            });
        }
        if before > 0 && bytes_before + bytes > self.bytes_max {
            return Err(ProposeError::Busy {
                what: "bytes waiting to be proposed",
                value: (bytes_before + bytes) as u64,
                limit: self.bytes_max as u64,
                key: "raftQueueBytesMax",
            });
        }
        Ok(place)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.count.fetch_sub(1, Ordering::Relaxed);
        self.admission
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both bounds refuse with their key and give places back; one large submission fits alone.
    #[test]
    fn bounds() {
        let admission = Admission::new(2, 100);
        let key = |r: Result<Admitted, ProposeError>| match r {
            Err(ProposeError::Busy {
                key, value, limit, ..
            }) => Some((key, value, limit)),
            Err(other) => panic!("{other}"),
            Ok(_) => None,
        };
        let one = admission.admit(60).unwrap();
        assert_eq!(
            key(admission.admit(41)),
            Some(("raftQueueBytesMax", 101, 100))
        );
        let two = admission.admit(40).unwrap();
        assert_eq!(key(admission.admit(0)), Some(("raftQueueCountMax", 3, 2)));
        drop((one, two));
        let large = admission.admit(1000).unwrap();
        assert!(key(admission.admit(1)).is_some());
        drop(large);
        assert!(admission.admit(1).is_ok());
    }
}

//! The first failed write or flush, kept for all that come after it.
//!
//! After a failed fsync the kernel may have dropped the dirty pages and reports later fsyncs as
//! successful, so nothing may be retried: the store refuses writes until the process ends.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::{Error, Result};

type Listener = Box<dyn FnOnce(&str) + Send>;

/// Shared flag with a reason, set at most once.
#[derive(Clone, Default)]
pub struct Poison {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    reason: OnceLock<Arc<str>>,
    listeners: Mutex<Vec<Listener>>,
}

impl Poison {
    /// The reason of the first failure, or `None` while all is well.
    pub fn reason(&self) -> Option<Arc<str>> {
        self.inner.reason.get().cloned()
    }

    /// Fails with [`Error::Poisoned`] once a write or flush has failed.
    pub fn check(&self) -> Result<()> {
        match self.inner.reason.get() {
            None => Ok(()),
            Some(reason) => Err(Error::Poisoned(reason.clone())),
        }
    }

    /// Calls `listener` with the reason, once, when the store becomes poisoned (at once if it is).
    ///
    /// The listener runs on the thread that met the failure and must not block.
    pub fn on_poison(&self, listener: impl FnOnce(&str) + Send + 'static) {
        let mut listeners = self.inner.listeners.lock();
        if let Some(reason) = self.inner.reason.get() {
            drop(listeners);
            listener(reason);
        } else {
            listeners.push(Box::new(listener));
        }
    }

    /// Records a failure. Only the first reason is kept; returns the error to hand on.
    pub fn poison(&self, error: Error) -> Error {
        if let Error::Poisoned(_) | Error::Closed = error {
            return error;
        }
        let mut listeners = self.inner.listeners.lock();
        if self.inner.reason.set(Arc::from(error.to_string())).is_ok() {
            let waiting = std::mem::take(&mut *listeners);
            drop(listeners);
            tracing::error!(%error, "store is poisoned: no further writes");
            for listener in waiting {
                listener(&error.to_string());
            }
        }
        error
    }
}

impl std::fmt::Debug for Poison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poison")
            .field("reason", &self.inner.reason.get())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::Path;

    /// Keeps the first reason and tells listeners once, also those that come late.
    #[test]
    fn first_reason_stays() {
        let poison = Poison::default();
        assert!(poison.check().is_ok());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let h = heard.clone();
        poison.on_poison(move |r| h.lock().push(r.to_owned()));
        poison.poison(Error::io("write", Path::new("/a"))(
            io::Error::from_raw_os_error(5),
        ));
        poison.poison(Error::io("write", Path::new("/b"))(
            io::Error::from_raw_os_error(28),
        ));
        let h = heard.clone();
        poison.on_poison(move |r| h.lock().push(r.to_owned()));
        let heard = heard.lock();
        assert_eq!(heard.len(), 2);
        assert!(heard.iter().all(|r| r.contains("/a")));
        assert!(matches!(poison.check(), Err(Error::Poisoned(r)) if r.contains("/a")));
    }
}

//! The runtime for client work, which members of several groups in one process share.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::{Instrument as _, Span};

/// Starts tasks of one member: what they log names its group.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    handle: Handle,
    span: Span,
}

impl Runtime {
    /// The runtime and the span that this is called in.
    pub(crate) fn current() -> Runtime {
        Runtime {
            handle: Handle::current(),
            span: Span::current(),
        }
    }

    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.handle.spawn(task.instrument(self.span.clone()))
    }
}

/// Starts a task of the member in whose span this is called.
pub(crate) fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(task.in_current_span())
}

/// Runs what waits for the disk on a thread for that.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

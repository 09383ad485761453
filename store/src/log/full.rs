//! Whether the log takes messages, or its disk is too full.

use std::sync::Arc;

use super::CommitLog;

impl CommitLog {
    /// Notes that the disk is too full for messages, and why in one line, or that it no longer is.
    pub fn set_full(&self, why: Option<Arc<str>>) {
        *self.shared().full.write() = why;
    }

    /// Why this disk is too full, if it is: what [`set_full`](Self::set_full) noted, or that the
    /// file system has no room to prepare the log further.
    pub fn full(&self) -> Option<Arc<str>> {
        let shared = self.shared();
        let noted = shared.full.read().clone();
        noted.or_else(|| shared.preparer.no_space().then(|| self.no_room()))
    }

    /// Asks whether messages of so many bytes may be proposed. Nothing is refused here later: an
    /// append that meets a full disk poisons the log.
    ///
    /// # Errors
    /// Why not, in one line that names the folder.
    pub fn takes_messages(&self, bytes: u64) -> std::result::Result<(), Arc<str>> {
        if let Some(noted) = &*self.shared().full.read() {
            return Err(noted.clone());
        }
        if self.has_room(bytes) {
            Ok(())
        } else {
            Err(self.no_room())
        }
    }

    /// That no more fits, in words.
    pub fn no_room(&self) -> Arc<str> {
        let dir = self.shared().options.dir.display();
        match self.space() {
            Ok(space) => format!(
                "the disk of the commit log {dir} has no room left: {} of {} bytes are available",
                space.available, space.total
            ),
            Err(_) => format!("the disk of the commit log {dir} has no room left"),
        }
        .into()
    }
}

//! What is left of topics that are gone.

use std::sync::Arc;

use super::State;

impl State {
    /// Topics that have queues and are not there themselves: a message that was under way when its
    /// topic was deleted brings a queue back.
    pub fn unused_topics(&self) -> Vec<Arc<str>> {
        let tables = self.inner.tables.read();
        let unused = |topic: &&Arc<str>| !tables.topics.contains_key(*topic);
        tables.queues.keys().filter(unused).cloned().collect()
    }
}

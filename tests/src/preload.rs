//! Fills a store with very many small messages, by batches.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::calls;
use crate::clock::Nanos;
use crate::history::{Ack, History, Key, Outcome, Send};
use crate::wait::pause;
use crate::wire::Connection;
use crate::workload::PRELOAD_FIRST;

/// Messages in a batch.
const BATCH: u32 = 500;
/// Bytes of a body.
const BODY: usize = 40;

/// Sends `count` messages, spread over all queues, one producer per queue.
pub fn preload(
    address: &str,
    topic: &str,
    queues: i32,
    count: u32,
    history: &History,
) -> Result<()> {
    let each = count / u32::try_from(queues).context("queues")?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..queues)
            .map(|queue| scope.spawn(move || fill(address, topic, queue, each, history)))
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_panic| anyhow::anyhow!("a preloading thread panicked"))??;
        }
        Ok(())
    })
}

fn fill(address: &str, topic: &str, queue: i32, count: u32, history: &History) -> Result<()> {
    let producer = PRELOAD_FIRST + queue.unsigned_abs();
    let mut connection = Connection::open(address)?;
    let mut seq = 0;
    while seq < count {
        let keys: Vec<Key> = (seq..count.min(seq + BATCH))
            .map(|seq| Key { producer, seq })
            .collect();
        let items = keys
            .iter()
            .map(|key| (calls::keys_property(&key.to_string()), key.body(BODY)));
        let request = calls::batch_request(topic, queue, items);
        let started = Nanos::now();
        match calls::send(&mut connection, &request) {
            Ok(sent) => {
                let finished = Nanos::now();
                let acks = keys.iter().zip(0_i64..).map(|(key, index)| Send {
                    key: *key,
                    queue,
                    started,
                    finished,
                    attempts_max: 1,
                    outcome: Outcome::Acked(Ack {
                        queue: sent.queue,
                        offset: sent.offset + index,
                        id: usize::try_from(index)
                            .ok()
                            .and_then(|at| sent.ids.get(at).copied()),
                    }),
                });
                history.extend(acks);
                seq += BATCH;
            }
            Err(error) if error.is::<calls::Refusal>() => {
                // A busy broker; nothing of the batch is stored, so the same keys may go again.
                let busy = error
                    .downcast_ref::<calls::Refusal>()
                    .is_some_and(|refusal| refusal.code == calls::response::SYSTEM_BUSY);
                anyhow::ensure!(busy, error.context("preload"));
                pause(Duration::from_millis(20));
            }
            Err(error) => return Err(error.context("preload")),
        }
    }
    Ok(())
}

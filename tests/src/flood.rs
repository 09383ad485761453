//! As many requests as a few connections carry.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::calls::{self, response};
use crate::clock::Nanos;
use crate::wire::{Connection, Request};
use anyhow::{Result, ensure};

const CONNECTIONS: usize = 8;
/// Requests under way on a connection.
const WINDOW: usize = 32;
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends so many requests and returns how long all took.
pub fn flood(
    address: &str,
    count: usize,
    request: &(impl Fn(usize) -> Request + Sync),
) -> Result<Duration> {
    let started = Nanos::now();
    on_all(|first| {
        let numbers = (first..count).step_by(CONNECTIONS);
        drive(address, numbers, request, &AtomicUsize::new(0))
    })?;
    Ok(started.elapsed())
}

/// Sends so many MiB in messages of 64 KiB to four queues of a topic, and returns how long that took.
pub fn fill(address: &str, topic: &str, mib: usize) -> Result<Duration> {
    const BYTES: usize = 64 << 10;
    let body = vec![b'x'; BYTES];
    flood(address, (mib << 20) / BYTES, &|nth| {
        message(topic, nth, &body)
    })
}

/// Sends messages of 1 KiB to four queues of a topic until `stop`; counts those that were acknowledged. What fails
/// after `stop` is nobody's concern.
pub fn flood_until(
    address: &str,
    topic: &str,
    stop: &AtomicBool,
    acked: &AtomicUsize,
) -> Result<()> {
    let body = [b'x'; 1024];
    on_all(|first| {
        let numbers = (first..).take_while(|_| !stop.load(Ordering::Relaxed));
        let request = |nth| message(topic, nth, &body);
        match drive(address, numbers, &request, acked) {
            Err(error) if !stop.load(Ordering::Relaxed) => Err(error),
            _ => Ok(()),
        }
    })
}

/// A message for one of four queues.
pub fn message(topic: &str, nth: usize, body: &[u8]) -> Request {
    let queue = i32::try_from(nth % 4).unwrap_or(0);
    calls::send_request(topic, queue, "", body)
}

fn on_all(work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|first| scope.spawn(move || work(first)))
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_panic| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })
}

fn drive(
    address: &str,
    numbers: impl Iterator<Item = usize>,
    request: &impl Fn(usize) -> Request,
    acked: &AtomicUsize,
) -> Result<()> {
    let mut connection = Connection::open(address)?;
    let mut waiting = 0;
    let read = |connection: &mut Connection| {
        let reply = connection.read(PATIENCE)?;
        ensure!(
            reply.code == response::SUCCESS,
            "code {}: {}",
            reply.code,
            reply.remark
        );
        acked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    for nth in numbers {
        if waiting == WINDOW {
            read(&mut connection)?;
            waiting -= 1;
        }
        connection.write(&request(nth))?;
        waiting += 1;
    }
    for _ in 0..waiting {
        read(&mut connection)?;
    }
    Ok(())
}

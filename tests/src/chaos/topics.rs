//! Somebody who creates a topic now and then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::calls;
use crate::leadership::Addresses;
use crate::wait::pause;
use crate::wire::Connection;

/// Time between two topics.
const EVERY: Duration = Duration::from_secs(1);

/// Under way.
#[derive(Debug)]
pub struct Topics {
    stop: Arc<AtomicBool>,
    made: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Topics {
    /// Starts, through each of the members in turn.
    pub fn start(members: &Addresses) -> Topics {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = {
            let (members, stop, made) = (Arc::clone(members), Arc::clone(&stop), Arc::clone(&made));
            std::thread::spawn(move || make(&members, &stop, &made))
        };
        Topics {
            stop,
            made,
            thread: Some(thread),
        }
    }

    /// Ends, and names the topics whose creation was acknowledged.
    pub fn stop(mut self) -> Vec<String> {
        self.halt();
        std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there is a failed assertion of the harness itself, already printed.
            thread.join().ok();
        }
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.halt();
    }
}

fn make(members: &Addresses, stop: &AtomicBool, made: &Mutex<Vec<String>>) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (topic, members) = (format!("Made{number}"), members());
        let address = members.get(number % members.len().max(1));
        let created = address
            .and_then(|address| Connection::open(address).ok())
            .and_then(|mut open| calls::create_topic(&mut open, &topic, 2).ok());
        if created.is_some() {
            let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
            made.push(topic);
        }
        pause(EVERY);
    }
}

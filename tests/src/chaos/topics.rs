//! Somebody who creates a topic now and then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::calls;
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
    /// Starts, through each member in turn.
    pub fn start(addresses: &[String]) -> Topics {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = {
            let (addresses, stop, made) =
                (addresses.to_vec(), Arc::clone(&stop), Arc::clone(&made));
            std::thread::spawn(move || make(&addresses, &stop, &made))
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

fn make(addresses: &[String], stop: &AtomicBool, made: &Mutex<Vec<String>>) {
    for (number, address) in addresses.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let topic = format!("Made{number}");
        let created = Connection::open(address)
            .and_then(|mut connection| calls::create_topic(&mut connection, &topic, 2));
        if created.is_ok() {
            let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
            made.push(topic);
        }
        pause(EVERY);
    }
}

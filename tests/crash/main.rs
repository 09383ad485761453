//! Faults that take the majority away, or make a leader miss its own deposition: what was acknowledged stays.

mod damaged;
mod killed;
mod paused;

//! What no client, user or operator should send, write or configure, and some will.
//!
//! After every piece of bad input the group must serve as before: through every member, and with the same processes.

mod bytes;
mod config;
mod nameserver;
mod requests;
mod slow;
mod stores;
mod support;

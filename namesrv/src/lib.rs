//! The nameserver: brokers tell it where they are and which topics they have, clients ask it for routes.
//!
//! It keeps everything in memory except the key-value configuration. Nameservers do not know of each other: every broker
//! tells every nameserver everything, and a client uses one at a time.
//!
//! ```text
//!  connection ─▶ Processor (the only match on request code) ─▶ RouteTable   pure: takes the time, decides
//!                                                          ├─▶ KvConfig     a file, written whole
//!                                                          └─▶ Config       keys of the conf file
//!  scan task  ─▶ RouteTable::expire
//! ```

pub mod config;
pub mod kv_config;
pub mod logging;
mod processor;
pub mod route_table;
mod server;

pub use config::Config;
pub use server::{NameServer, StartError};

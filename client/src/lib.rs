//! A client for RocketMQ-compatible brokers: producer, push and pull consumer, admin calls.
//!
//! Made for a cluster of Raft groups: when a broker fails, a call goes on to another member of its
//! group at once (any member takes any request), while the nameservers are asked for the new leader
//! every few milliseconds, until the call's time is over.
//!
//! ```text
//!  Producer   PushConsumer   PullConsumer   Admin
//!       └──────────┴──────┬───────┴───────────┘
//!                      Instance          one per process: connections, routes, heartbeats
//!            ┌────────────┴────────────┐
//!       routes ◀─ nameservers     members: whom to try, in which order
//! ```
//!
//! Everything runs on the tokio runtime that it is called from.

mod admin;
pub mod allocate;
mod call;
mod callbacks;
mod error;
mod find;
pub mod identity;
mod instance;
pub mod local_time;
mod members;
mod message;
mod nameservers;
mod prepare;
mod producer;
mod progress;
mod pull;
mod pull_consumer;
mod push_consumer;
mod reader;
mod retry;
pub mod route;
mod routes;
mod send_result;
mod subscription;
mod unique_key;

pub use admin::Admin;
pub use error::{Error, Result};
pub use find::KeyQuery;
pub use instance::{Instance, InstanceOptions};
pub use message::{Message, MessageExt, decode_records};
pub use nameservers::NameServers;
pub use producer::{Producer, ProducerOptions};
pub use pull::{PullResult, PullStatus};
pub use pull_consumer::PullConsumer;
pub use push_consumer::{
    ConsumeFrom, ConsumeStatus, Consuming, MessageListener, PushConsumer, PushConsumerOptions,
};
pub use raftmq_proto::body::{MessageModel, MessageQueue};
pub use send_result::{SendResult, SendStatus};
pub use subscription::Subscription;

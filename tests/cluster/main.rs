//! A group of three under faults that leave a majority: no acknowledged message may be lost, moved or reordered, and
//! clients go on within seconds.

mod calm;
mod endpoint;
mod failover;
mod followers;
mod forwarding;
mod handover;
mod locks;
mod membership;
mod nameservers;
mod offsets;
mod preloaded;
mod reads;
mod registers;

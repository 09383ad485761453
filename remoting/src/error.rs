//! Why a request of ours has no answer.

use std::net::SocketAddr;
use std::time::Duration;

/// Why a request that this process sent has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made; the request was not sent.
    #[error("connect to {address} failed: {reason}")]
    Connect {
        /// The address as the caller gave it.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// No answer came in time. The peer may or may not have executed the request.
    #[error("no answer from {peer} within {} ms", after.as_millis())]
    Timeout {
        /// Who was asked.
        peer: String,
        /// How long this request waited.
        after: Duration,
    },
    /// The connection was closed. If the request had been sent already, the peer may or may not have executed it.
    #[error("connection to {peer} is closed")]
    Closed {
        /// Who was asked.
        peer: SocketAddr,
    },
    /// A bound of this side is reached; the request was not sent.
    #[error("too many {what} to {peer}: {value} reach the limit {limit}")]
    TooManyInFlight {
        /// Who was to be asked.
        peer: String,
        /// What is counted.
        what: &'static str,
        /// How many there are.
        value: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// The request is longer than a frame may be; it was not sent.
    #[error("request of about {bytes} bytes to {peer} exceeds the frame limit {limit}")]
    TooLarge {
        /// Who was to be asked.
        peer: SocketAddr,
        /// Length of the request as estimated before encoding it.
        bytes: usize,
        /// The longest frame.
        limit: usize,
    },
}

impl ClientError {
    /// Whether the request certainly did not reach the peer, so that sending it again cannot execute it twice.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::TooManyInFlight { .. } | Self::TooLarge { .. } => true,
            Self::Timeout { .. } | Self::Closed { .. } => false,
        }
    }
}

//! What can go wrong for a caller of this crate.

use std::time::Duration;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be sent as it is; nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// No nameserver knows the topic.
    #[error("No route info of this topic: {topic}")]
    NoRoute {
        /// The topic asked for.
        topic: String,
    },
    /// The server refused. The text has the form of RocketMQ's client.
    #[error("CODE: {code}  DESC: {remark}")]
    Refused {
        /// Address of the server.
        address: String,
        /// Response code.
        code: i32,
        /// The server's explanation, may be empty.
        remark: String,
    },
    /// The server could not be reached or the connection was lost. The request may have been carried
    /// out all the same unless the cause is a failed connect.
    #[error("{cause}")]
    Connection {
        /// Address of the server.
        address: String,
        /// What happened to the connection.
        cause: raftmq_remoting::ClientError,
    },
    /// The time allowed is over. The request may have been carried out.
    #[error("no success within {} ms{}", allowed.as_millis(), after_last(last.as_deref()))]
    Deadline {
        /// The time that was allowed.
        allowed: Duration,
        /// How the last attempt failed, if one was made.
        last: Option<Box<Error>>,
    },
    /// The server's answer cannot be read.
    #[error("unreadable answer of {address}: {reason}")]
    Unreadable {
        /// Address of the server.
        address: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The instance was shut down.
    #[error("the client is shut down")]
    Closed,
}

fn after_last(last: Option<&Error>) -> String {
    last.map(|last| format!("; last failure: {last}"))
        .unwrap_or_default()
}

impl Error {
    /// The response code, when a server refused (also as the last attempt before a deadline).
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            Error::Deadline {
                last: Some(last), ..
            } => last.code(),
            _ => None,
        }
    }
}

/// Result of the calls of this crate.
pub type Result<T> = std::result::Result<T, Error>;

//! JSON as RocketMQ's programs write and read it (fastjson's dialect).
//!
//! Read: standard JSON, and also unquoted keys (`{0:"a"}`), objects as keys (maps keyed by a
//! message queue), single quotes, numbers and booleans written as strings and the reverse. A member
//! that is `null` counts as absent. `{"$ref":…}`, fastjson's way to repeat an object, is refused.
//!
//! Written: no whitespace, integer keys quoted, a struct used as a map key written as an object,
//! members without a value left out. Every client generation reads that.

mod de;
mod scan;
mod ser;

pub use de::from_slice;
pub(crate) use scan::{Scanner, push_lossy};
pub use ser::to_vec;
pub(crate) use ser::{write_i64, write_string};

use std::fmt;

/// Nesting beyond which a document is refused: the deepest RocketMQ body has about eight levels.
pub(crate) const DEPTH_MAX: u32 = 64;

/// Why a JSON text could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    message: String,
    at: Option<usize>,
}

impl JsonError {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        JsonError {
            message: message.into(),
            at: Some(at),
        }
    }

    /// Byte position in the text where reading stopped, where known.
    pub fn position(&self) -> Option<usize> {
        self.at
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "bad JSON at byte {at}: {}", self.message),
            None => write!(f, "bad JSON: {}", self.message),
        }
    }
}

impl std::error::Error for JsonError {}

impl serde::de::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        JsonError {
            message: message.to_string(),
            at: None,
        }
    }
}

impl serde::ser::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        JsonError {
            message: message.to_string(),
            at: None,
        }
    }
}

#[cfg(test)]
mod tests;

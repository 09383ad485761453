//! JSON bodies, under RocketMQ's member names. See [`crate::json`] for the dialect.
//!
//! Members stand in alphabetical order, as Java writes them. Members that a sender left out or
//! set to `null` take their defaults; members that are not listed here are ignored.

mod assignment;
mod client;
mod connection;
mod group;
mod raft;
mod register;
mod route;
mod running;
mod security;
mod stats;
mod topic;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use assignment::*;
pub use client::*;
pub use connection::*;
pub use group::*;
pub use raft::*;
pub use register::*;
pub use route::*;
pub use running::*;
pub use security::*;
pub use stats::*;
pub use topic::*;

pub use crate::json::JsonError;

/// Reads a body.
///
/// # Errors
/// What is wrong with the text, where; or which member has the wrong kind of value.
pub fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, JsonError> {
    crate::json::from_slice(json)
}

/// Writes a body.
pub fn to_json<T: Serialize + ?Sized>(body: &T) -> Vec<u8> {
    crate::json::to_vec(body).expect("serializing a body raises no error of its own")
}

/// Gives bodies their `from_json` and `to_json`.
macro_rules! json_bodies {
    ($($body:ty),* $(,)?) => {
        $(#[allow(clippy::wrong_self_convention, reason = "one form for all bodies, small or not")]
        impl $body {
            /// Reads the body.
            ///
            /// # Errors
            /// What is wrong with the text, where; or which member has the wrong kind of value.
            pub fn from_json(json: &[u8]) -> Result<Self, crate::json::JsonError> {
                crate::body::from_json(json)
            }

            /// Writes the body.
            pub fn to_json(&self) -> Vec<u8> {
                crate::body::to_json(self)
            }
        })*
    };
}
use json_bodies;

/// Declares an enum that goes out by constant name and comes in by name or by position (the C++
/// client sends numbers). What is unknown becomes the default, the first constant.
macro_rules! constants {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $wire:literal @ $ordinal:literal),* $(,)? }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
            #[allow(clippy::enum_variant_names, reason = "the names are RocketMQ's")]
            pub enum $name {
                $($(#[$variant_doc])* $variant),*
            }

            impl $name {
                const ALL: &'static [$name] = &[$($name::$variant),*];

                /// The name on the wire.
                pub fn name(self) -> &'static str {
                    match self {
                        $($name::$variant => $wire),*
                    }
                }

                /// The constant of a name on the wire.
                pub fn from_name(name: &str) -> Option<Self> {
                    match name {
                        $($wire => Some($name::$variant),)*
                        _ => None,
                    }
                }

                fn from_ordinal(ordinal: i64) -> Option<Self> {
                    match ordinal {
                        $($ordinal => Some($name::$variant),)*
                        _ => None,
                    }
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::ALL.first().copied().expect("an enum has a constant")
                }
            }

            impl std::fmt::Display for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(self.name())
                }
            }

            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(self.name())
                }
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    struct Constant;

                    impl serde::de::Visitor<'_> for Constant {
                        type Value = $name;

                        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                            f.write_str("the name of a constant")
                        }

                        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<$name, E> {
                            let ordinal = || name.parse().ok().and_then($name::from_ordinal);
                            Ok($name::from_name(name).or_else(ordinal).unwrap_or_default())
                        }

                        fn visit_i64<E: serde::de::Error>(self, ordinal: i64) -> Result<$name, E> {
                            Ok($name::from_ordinal(ordinal).unwrap_or_default())
                        }
                    }

                    deserializer.deserialize_any(Constant)
                }
            }
        )*
    };
}
use constants;

#[cfg(test)]
mod tests;

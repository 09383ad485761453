//! Typed headers: one struct per request or response header that RocketMQ names.
//!
//! On the wire every value is text. Fields beyond those of the struct are ignored: clients add
//! `ns`, `bname`, `AccessKey` and others to any request. `Option` fields may be absent.

mod admin;
mod group;
mod message;
mod namesrv;
mod offset;
mod pop;
mod pull;
mod send;
mod topic;

use std::borrow::Cow;

use thiserror::Error;

pub use admin::*;
pub use group::*;
pub use message::*;
pub use namesrv::*;
pub use offset::*;
pub use pop::*;
pub use pull::*;
pub use send::*;
pub use topic::*;

use crate::frame::ExtFields;

/// A header that can be read from and written to the fields of a frame.
pub trait Header: Sized {
    /// Reads the header.
    ///
    /// # Errors
    /// When a required field is missing or a value has the wrong form.
    fn decode(fields: &ExtFields) -> Result<Self, HeaderError>;

    /// Writes the header's fields, replacing those of the same names.
    fn encode(&self, fields: &mut ExtFields);
}

/// What is wrong with a header. The text is fit to be sent back as remark.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// A required field is not there.
    #[error("header field {field} is missing")]
    Missing {
        /// Wire name of the field.
        field: &'static str,
    },
    /// A number field holds something else, or a number out of range.
    #[error("header field {field} = '{value}' is not a {bits}-bit integer")]
    NotInteger {
        /// Wire name of the field.
        field: &'static str,
        /// What it holds, shortened.
        value: String,
        /// 32 or 64.
        bits: u32,
    },
    /// A boolean field holds something else.
    #[error("header field {field} = '{value}' is not true or false")]
    NotBoolean {
        /// Wire name of the field.
        field: &'static str,
        /// What it holds, shortened.
        value: String,
    },
}

/// Cuts foreign text down to what may be quoted in an error.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    const SHOWN_MAX: usize = 64;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => Cow::Owned(format!("{}…", text.get(..at).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// A type that a header field can have.
pub(crate) trait Value: Sized {
    fn parse(field: &'static str, text: &str) -> Result<Self, HeaderError>;

    /// What an absent field stands for; `None` where the field is required.
    fn absent() -> Option<Self> {
        None
    }

    fn write(&self, field: &'static str, fields: &mut ExtFields);
}

impl Value for String {
    fn parse(_: &'static str, text: &str) -> Result<Self, HeaderError> {
        Ok(text.to_owned())
    }

    fn write(&self, field: &'static str, fields: &mut ExtFields) {
        fields.insert(field, self);
    }
}

macro_rules! integer_values {
    ($($type:ty),*) => {
        $(impl Value for $type {
            fn parse(field: &'static str, text: &str) -> Result<Self, HeaderError> {
                text.parse().ok().ok_or_else(|| HeaderError::NotInteger {
                    field,
                    value: shorten(text).into_owned(),
                    bits: <$type>::BITS,
                })
            }

            fn write(&self, field: &'static str, fields: &mut ExtFields) {
                fields.insert_display(field, self);
            }
        })*
    };
}

integer_values!(i32, i64);

impl Value for bool {
    fn parse(field: &'static str, text: &str) -> Result<Self, HeaderError> {
        // C++ clients print booleans as digits.
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" | "" => Ok(false),
            _ if text.eq_ignore_ascii_case("true") => Ok(true),
            _ if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(HeaderError::NotBoolean {
                field,
                value: shorten(text).into_owned(),
            }),
        }
    }

    fn write(&self, field: &'static str, fields: &mut ExtFields) {
        fields.insert(field, if *self { "true" } else { "false" });
    }
}

impl<T: Value> Value for Option<T> {
    fn parse(field: &'static str, text: &str) -> Result<Self, HeaderError> {
        T::parse(field, text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn write(&self, field: &'static str, fields: &mut ExtFields) {
        if let Some(value) = self {
            value.write(field, fields);
        }
    }
}

/// Reads one field by its wire name.
pub(crate) fn read<T: Value>(fields: &ExtFields, field: &'static str) -> Result<T, HeaderError> {
    match fields.get(field) {
        Some(text) => T::parse(field, text),
        None => T::absent().ok_or(HeaderError::Missing { field }),
    }
}

/// Reads one field by its wire name, with what an absent field stands for.
pub(crate) fn read_or<T: Value>(
    fields: &ExtFields,
    field: &'static str,
    default: impl Into<T>,
) -> Result<T, HeaderError> {
    fields
        .get(field)
        .map_or_else(|| Ok(default.into()), |text| T::parse(field, text))
}

/// Extension field of answers that another member than the one asked has given: a client that sends where its route says
/// should look for a newer one. Other clients pass over it.
pub const FORWARDED_FIELD: &str = "raftmqForwarded";

/// Declares headers: `name: Type = "wireName"`, with `or VALUE` for an absent field's value.
macro_rules! headers {
    ($(
        $(#[$doc:meta])*
        $header:ident {
            $($field:ident: $type:ty = $wire:literal $(or $default:expr)?),* $(,)?
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $header {
                $(
                    #[doc = concat!("Wire name `", $wire, "`", $(", `", stringify!($default), "` when absent",)? ".")]
                    pub $field: $type,
                )*
            }

            impl Default for $header {
                fn default() -> Self {
                    $header { $($field: headers!(@default $type $(, $default)?),)* }
                }
            }

            #[allow(unused_variables, reason = "some headers have no fields")]
            impl crate::header::Header for $header {
                fn decode(
                    fields: &crate::frame::ExtFields,
                ) -> Result<Self, crate::header::HeaderError> {
                    Ok($header { $($field: headers!(@read fields, $wire $(, $default)?),)* })
                }

                fn encode(&self, fields: &mut crate::frame::ExtFields) {
                    $(crate::header::Value::write(&self.$field, $wire, fields);)*
                }
            }
        )*
    };
    (@default $type:ty) => { <$type>::default() };
    (@default $type:ty, $default:expr) => { <$type>::from($default) };
    (@read $fields:ident, $wire:literal) => { crate::header::read($fields, $wire)? };
    (@read $fields:ident, $wire:literal, $default:expr) => {
        crate::header::read_or($fields, $wire, $default)?
    };
}
use headers;

#[cfg(test)]
mod tests;

//! Remoting frames: the envelope of every request and reply on RocketMQ's ports.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | length of what follows |
//! | 4 | 1 | header encoding: 0 JSON, 1 binary |
//! | 5 | 3 | header length |
//! | 8 | header length | header |
//! | 8 + header length | rest | body, absent when nothing is left |
//!
//! All integers are big-endian.

mod binary;
mod body;
mod ext_fields;
mod json;
mod language;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use body::Body;
pub use ext_fields::{EXT_FIELDS_MAX, ExtFields};
pub use language::LanguageCode;

use crate::code::response;
use crate::header::Header;
use crate::json::JsonError;

/// Largest frame in bytes, without its length word (RocketMQ: `com.rocketmq.remoting.frameMaxLength`).
pub const FRAME_MAX: usize = 16 * 1024 * 1024;

/// The protocol version RaftMQ reports: RocketMQ 5.3.3.
pub const CURRENT_VERSION: i32 = 479;

/// The header length has 24 bits.
const HEADER_MAX: usize = 0x00FF_FFFF;

const FLAG_RESPONSE: i32 = 1;
const FLAG_ONEWAY: i32 = 2;

/// How a frame's header is encoded. A reply uses the encoding of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SerializeType {
    /// A JSON object; what clients use unless told otherwise.
    #[default]
    Json,
    /// RocketMQ's binary header. Request codes above 32767 do not fit into it.
    RocketMq,
}

/// Why bytes are not a remoting frame. The connection they came from cannot be used further.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// The frame is longer than any peer may send.
    #[error("frame of {len} bytes is longer than {FRAME_MAX}")]
    TooLong {
        /// Bytes in the frame.
        len: usize,
    },
    /// The frame ends before the word that holds its header's length.
    #[error("frame of {len} bytes has no room for its header length")]
    Truncated {
        /// Bytes in the frame.
        len: usize,
    },
    /// The encoding byte is neither 0 (JSON) nor 1 (binary).
    #[error("header encoding {0} is neither 0 (JSON) nor 1 (ROCKETMQ)")]
    UnknownSerializeType(u8),
    /// The header is announced longer than the frame.
    #[error("header of {header} bytes in a frame with {room} bytes after its header length")]
    HeaderTooLong {
        /// Announced header length.
        header: usize,
        /// Bytes that are there.
        room: usize,
    },
    /// The JSON header cannot be read.
    #[error("frame header: {0}")]
    Json(#[from] JsonError),
    /// A field of the binary header ends beyond the header.
    #[error("binary frame header ends inside its field {field}")]
    Binary {
        /// The field that was being read.
        field: &'static str,
    },
    /// More extension fields than any client sends.
    #[error("more than {EXT_FIELDS_MAX} ext fields in a frame header")]
    TooManyFields,
}

/// What a reply needs to know about its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestMeta {
    /// Request code.
    pub code: i32,
    /// The sender's number for the request; its reply carries the same.
    pub opaque: i32,
    /// Encoding of the request's header, to be used for the reply too.
    pub serialize: SerializeType,
    /// Whether the sender expects no reply.
    pub oneway: bool,
    /// The sender's language.
    pub language: LanguageCode,
    /// The sender's protocol version.
    pub version: i32,
}

/// One request or reply.
#[derive(Clone, Debug, PartialEq)]
pub struct RemotingCommand {
    /// Request or response code, see [`crate::code`].
    pub code: i32,
    /// Language of the sender.
    pub language: LanguageCode,
    /// Protocol version of the sender.
    pub version: i32,
    /// Matches a reply with its request; each side of a connection counts its own requests.
    pub opaque: i32,
    /// Bit 0: this is a response. Bit 1: no response is expected.
    pub flag: i32,
    /// Text for people: why a request failed.
    pub remark: Option<String>,
    /// Header fields of this code, as text; [`crate::header`] has them typed.
    pub ext_fields: ExtFields,
    /// Payload.
    pub body: Body,
    /// Encoding of the header.
    pub serialize: SerializeType,
}

impl RemotingCommand {
    fn new(code: i32, flag: i32, language: LanguageCode) -> Self {
        RemotingCommand {
            code,
            language,
            version: CURRENT_VERSION,
            opaque: 0,
            flag,
            remark: None,
            ext_fields: ExtFields::default(),
            body: Body::default(),
            serialize: SerializeType::Json,
        }
    }

    /// A request with an empty header and body; whoever sends it sets `opaque`.
    pub fn request(code: i32) -> Self {
        // Stock brokers and clients print languages they do not know as OTHER; JAVA switches on nothing.
        RemotingCommand::new(code, 0, LanguageCode::JAVA)
    }

    /// A reply; [`reply_to`](Self::reply_to) addresses it.
    pub fn response(code: i32, remark: Option<String>) -> Self {
        RemotingCommand {
            remark,
            ..RemotingCommand::new(code, FLAG_RESPONSE, LanguageCode::JAVA)
        }
    }

    /// A reply with code `SUCCESS`.
    pub fn success() -> Self {
        RemotingCommand::response(response::SUCCESS, None)
    }

    /// A reply that says why a request failed.
    pub fn failure(code: i32, remark: impl Into<String>) -> Self {
        RemotingCommand::response(code, Some(remark.into()))
    }

    /// Makes this the reply to a request: same number, same header encoding.
    pub fn reply_to(&mut self, request: &RequestMeta) {
        self.opaque = request.opaque;
        self.serialize = request.serialize;
        self.flag = FLAG_RESPONSE;
    }

    /// What a reply to this request needs.
    pub fn meta(&self) -> RequestMeta {
        RequestMeta {
            code: self.code,
            opaque: self.opaque,
            serialize: self.serialize,
            oneway: self.is_oneway(),
            language: self.language,
            version: self.version,
        }
    }

    /// Whether this is a reply.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether the sender expects no reply.
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// Marks this as a request without reply.
    pub fn mark_oneway(&mut self) {
        self.flag |= FLAG_ONEWAY;
    }

    /// Adds the fields of a typed header.
    #[must_use]
    pub fn with_header(mut self, header: &impl Header) -> Self {
        header.encode(&mut self.ext_fields);
        self
    }

    /// Adds one header field.
    #[must_use]
    pub fn with_field(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.ext_fields.insert(name, value);
        self
    }

    /// Replaces the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Reads a frame: the bytes after the length word. The body is a slice of it, not a copy.
    ///
    /// # Errors
    /// When the bytes are not a frame; nothing more can be read from their connection then.
    pub fn decode(frame: Bytes) -> Result<Self, FrameError> {
        let len = frame.len();
        if len > FRAME_MAX {
            return Err(FrameError::TooLong { len });
        }
        let Some((word, rest)) = frame.split_first_chunk::<4>() else {
            return Err(FrameError::Truncated { len });
        };
        let [encoding, high, middle, low] = *word;
        let header_len = u32::from_be_bytes([0, high, middle, low]) as usize;
        let Some(header) = rest.get(..header_len) else {
            return Err(FrameError::HeaderTooLong {
                header: header_len,
                room: rest.len(),
            });
        };
        let mut command = match encoding {
            0 => json::decode(header)?,
            1 => binary::decode(header)?,
            other => return Err(FrameError::UnknownSerializeType(other)),
        };
        command.body = frame.slice(4 + header_len..).into();
        Ok(command)
    }

    /// Appends the length word and the header. The chunks of the body have to follow.
    ///
    /// A header that cannot be framed at all (over 16 MiB) is sent without its fields and with a
    /// remark that says so.
    pub fn encode_head(&self, out: &mut BytesMut) {
        let start = out.len();
        if !self.encode_head_within(out, HEADER_MAX) {
            out.truncate(start);
            let code = if self.is_response() {
                response::SYSTEM_ERROR
            } else {
                self.code
            };
            let remark = format!("the header is longer than {HEADER_MAX} bytes");
            let bare = RemotingCommand {
                code,
                remark: Some(remark),
                ext_fields: ExtFields::default(),
                body: Body::default(),
                ..*self
            };
            bare.encode_head_with_body(out, self.body.len());
        }
    }

    fn encode_head_within(&self, out: &mut BytesMut, max: usize) -> bool {
        let start = out.len();
        self.encode_head_with_body(out, self.body.len());
        out.len() - start - 8 <= max
    }

    fn encode_head_with_body(&self, out: &mut BytesMut, body_len: usize) {
        let start = out.len();
        out.reserve(8 + 128 + self.ext_fields.text_len() * 2);
        out.put_u64(0);
        let binary = self.serialize == SerializeType::RocketMq && binary::fits(self);
        if binary {
            binary::encode(self, out);
        } else {
            json::encode(self, out);
        }
        let header_len = out.len() - start - 8;
        let length = u32::try_from(4 + header_len + body_len).unwrap_or(u32::MAX);
        let word = (u32::from(binary) << 24) | (u32::try_from(header_len).unwrap_or(0) & 0xFF_FFFF);
        if let Some(head) = out.get_mut(start..start + 8) {
            head.copy_from_slice(&(u64::from(length) << 32 | u64::from(word)).to_be_bytes());
        }
    }

    /// The whole frame in one piece, length word included.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_head(&mut out);
        for chunk in self.body.chunks() {
            out.extend_from_slice(chunk);
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests;

//! The binary frame header (RocketMQ: `RocketMQSerializable`).
//!
//! | size | field |
//! |---|---|
//! | 2 | code |
//! | 1 | language |
//! | 2 | version |
//! | 4 | opaque |
//! | 4 | flag |
//! | 4 + n | remark; length 0 is no remark |
//! | 4 + n | ext fields: int16 name length, name, int32 value length, value, and again |

use bytes::{BufMut, BytesMut};

use super::{EXT_FIELDS_MAX, ExtFields, FrameError, LanguageCode, RemotingCommand, SerializeType};
use crate::read::Reader;

pub(super) fn decode(header: &[u8]) -> Result<RemotingCommand, FrameError> {
    let mut read = Reader::new(header);
    let mut command = RemotingCommand::new(0, 0, LanguageCode::OTHER);
    command.code = whole(read.i16(), "code")?.into();
    command.language = LanguageCode::from_code(whole(read.u8(), "language")?);
    command.version = whole(read.i16(), "version")?.into();
    command.opaque = whole(read.i32(), "opaque")?;
    command.flag = whole(read.i32(), "flag")?;
    let remark = whole(read.sized_i32(), "remark")?;
    if !remark.is_empty() {
        command.remark = Some(String::from_utf8_lossy(remark).into_owned());
    }
    let fields = whole(read.sized_i32(), "extFields")?;
    if !fields.is_empty() {
        command.ext_fields = decode_fields(fields)?;
    }
    command.serialize = SerializeType::RocketMq;
    Ok(command)
}

fn whole<T>(value: Option<T>, field: &'static str) -> Result<T, FrameError> {
    value.ok_or(FrameError::Binary { field })
}

fn decode_fields(bytes: &[u8]) -> Result<ExtFields, FrameError> {
    let truncated = FrameError::Binary { field: "extFields" };
    let mut read = Reader::new(bytes);
    let mut fields = ExtFields::with_capacity(16, bytes.len());
    while !read.is_empty() {
        let (Some(name), Some(value)) = (read.sized_i16(), read.sized_i32()) else {
            return Err(truncated);
        };
        fields.push_with(|text| -> Result<_, FrameError> {
            crate::json::push_lossy(text, name);
            let at = text.len();
            crate::json::push_lossy(text, value);
            Ok(Some(at))
        })?;
        if fields.len() > EXT_FIELDS_MAX {
            return Err(FrameError::TooManyFields);
        }
    }
    Ok(fields)
}

/// Whether every number fits: a request code such as 200050 does not and travels as JSON instead.
pub(super) fn fits(command: &RemotingCommand) -> bool {
    i16::try_from(command.code).is_ok()
        && i16::try_from(command.version).is_ok()
        && command
            .ext_fields
            .iter()
            .all(|(name, _)| i16::try_from(name.len()).is_ok())
}

/// Writes a command that [`fits`].
pub(super) fn encode(command: &RemotingCommand, out: &mut BytesMut) {
    out.put_i16(i16::try_from(command.code).unwrap_or(i16::MAX));
    out.put_u8(command.language.0);
    out.put_i16(i16::try_from(command.version).unwrap_or(i16::MAX));
    out.put_i32(command.opaque);
    out.put_i32(command.flag);
    put_sized(out, command.remark.as_deref().unwrap_or_default());
    let total: usize = command
        .ext_fields
        .iter()
        .map(|(n, v)| 2 + n.len() + 4 + v.len())
        .sum();
    out.put_u32(u32::try_from(total).unwrap_or(u32::MAX));
    for (name, value) in command.ext_fields.iter() {
        out.put_i16(i16::try_from(name.len()).unwrap_or(i16::MAX));
        out.put_slice(name.as_bytes());
        put_sized(out, value);
    }
}

fn put_sized(out: &mut BytesMut, text: &str) {
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

//! The JSON frame header.

use bytes::{BufMut, BytesMut};

use super::{EXT_FIELDS_MAX, ExtFields, FrameError, LanguageCode, RemotingCommand, SerializeType};
use crate::json::{JsonError, Scanner, write_i64, write_string};

pub(super) fn decode(header: &[u8]) -> Result<RemotingCommand, FrameError> {
    let mut scan = Scanner::new(header);
    let mut command = RemotingCommand::new(0, 0, LanguageCode::OTHER);
    command.version = 0;
    let mut has_code = false;
    scan.expect(b'{')?;
    let mut first = true;
    while scan.next_item(&mut first, b'}')? {
        let key = scan.key()?;
        if scan.take_null() {
            continue;
        }
        match &*key {
            "code" => {
                command.code = scan.int32()?;
                has_code = true;
            }
            "language" => command.language = language(&scan.text()?),
            "version" => command.version = scan.int32()?,
            "opaque" => command.opaque = scan.int32()?,
            "flag" => command.flag = scan.int32()?,
            "remark" => command.remark = Some(scan.text()?.into_owned()),
            "extFields" => command.ext_fields = fields(&mut scan, header.len())?,
            _ => {
                scan.skip(1)?;
            }
        }
    }
    scan.end()?;
    if !has_code {
        return Err(scan.error("member code is missing").into());
    }
    command.serialize = SerializeType::Json;
    Ok(command)
}

/// Clients write the name; a number is taken too.
fn language(text: &str) -> LanguageCode {
    text.parse()
        .map_or_else(|_| LanguageCode::from_name(text), LanguageCode::from_code)
}

fn fields(scan: &mut Scanner<'_>, text_max: usize) -> Result<ExtFields, FrameError> {
    // Unescaping only ever shortens text, so that the string never has to grow.
    let mut fields = ExtFields::with_capacity(16, text_max);
    scan.expect(b'{')?;
    let mut first = true;
    while scan.next_item(&mut first, b'}')? {
        fields.push_with(|text| field(scan, text))?;
        if fields.len() > EXT_FIELDS_MAX {
            return Err(FrameError::TooManyFields);
        }
    }
    Ok(fields)
}

/// Appends one name and value to `text`; returns where the value starts, `None` for a null.
fn field(scan: &mut Scanner<'_>, text: &mut String) -> Result<Option<usize>, JsonError> {
    match scan.peek() {
        Some(b'"' | b'\'') => scan.quoted_into(text)?,
        _ => text.push_str(scan.word()?),
    }
    scan.expect(b':')?;
    let value = text.len();
    match scan.peek() {
        Some(b'"' | b'\'') => scan.quoted_into(text)?,
        Some(b'{' | b'[') => {
            let raw = scan.skip(2)?;
            text.push_str(&String::from_utf8_lossy(raw));
        }
        _ if scan.take_null() => return Ok(None),
        _ => text.push_str(scan.word()?),
    }
    Ok(Some(value))
}

/// Writes the members in alphabetical order, as Java does.
pub(super) fn encode(command: &RemotingCommand, out: &mut BytesMut) {
    out.put_slice(b"{\"code\":");
    write_i64(out, command.code.into());
    if !command.ext_fields.is_empty() {
        out.put_slice(b",\"extFields\":{");
        for (at, (name, value)) in command.ext_fields.iter().enumerate() {
            if at > 0 {
                out.put_u8(b',');
            }
            write_string(out, name);
            out.put_u8(b':');
            write_string(out, value);
        }
        out.put_u8(b'}');
    }
    out.put_slice(b",\"flag\":");
    write_i64(out, command.flag.into());
    out.put_slice(b",\"language\":\"");
    out.put_slice(command.language.name().as_bytes());
    out.put_slice(b"\",\"opaque\":");
    write_i64(out, command.opaque.into());
    if let Some(remark) = &command.remark {
        out.put_slice(b",\"remark\":");
        write_string(out, remark);
    }
    out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    write_i64(out, command.version.into());
    out.put_u8(b'}');
}

//! The writer of the dialect.

use bytes::BufMut;
use serde::ser::{self, Serialize};

use super::JsonError;

/// Writes a value as JSON in RocketMQ's dialect.
///
/// # Errors
/// Only those that the value's own `Serialize` implementation raises.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, JsonError> {
    let mut writer = Writer {
        out: Vec::with_capacity(256),
    };
    if value.serialize(&mut writer)? == Written::Nothing {
        writer.out.extend_from_slice(b"null");
    }
    Ok(writer.out)
}

/// Appends a quoted and escaped string.
pub(crate) fn write_string(out: &mut impl BufMut, text: &str) {
    out.put_u8(b'"');
    let mut rest = text.as_bytes();
    while let Some(len) = rest
        .iter()
        .position(|&b| b < 0x20 || b == b'"' || b == b'\\')
    {
        let (plain, special) = rest.split_at(len);
        out.put_slice(plain);
        let Some((&byte, after)) = special.split_first() else {
            break;
        };
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.put_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
        }
        rest = after;
    }
    out.put_slice(rest);
    out.put_u8(b'"');
}

/// Appends a decimal integer.
pub(crate) fn write_i64(out: &mut impl BufMut, value: i64) {
    let mut digits = [0u8; 20];
    let mut left = value.unsigned_abs();
    let mut at = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        at -= 1;
        if left == 0 {
            break;
        }
    }
    if value < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(digits.get(at..).unwrap_or_default());
}

/// Whether serializing put anything out: a member whose value is `None` is left out whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Value,
    Nothing,
}

struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn number(&mut self, value: impl std::fmt::Display) -> Result<Written, JsonError> {
        self.out.extend_from_slice(value.to_string().as_bytes());
        Ok(Written::Value)
    }

    fn begin<'a>(&'a mut self, open: &[u8], close: &'static [u8]) -> Compound<'a> {
        self.out.extend_from_slice(open);
        Compound {
            writer: self,
            close,
            first: true,
            member: 0,
        }
    }
}

/// An array or object that is being written.
struct Compound<'a> {
    writer: &'a mut Writer,
    close: &'static [u8],
    first: bool,
    /// Length before the member under way, to take it back when its value is absent.
    member: usize,
}

impl Compound<'_> {
    fn comma(&mut self) {
        if !self.first {
            self.writer.out.push(b',');
        }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        self.comma();
        if value.serialize(&mut *self.writer)? == Written::Nothing {
            self.writer.out.extend_from_slice(b"null");
        }
        self.first = false;
        Ok(())
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), JsonError> {
        self.member = self.writer.out.len();
        self.comma();
        key.serialize(KeyWriter {
            writer: self.writer,
        })?;
        self.writer.out.push(b':');
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        match value.serialize(&mut *self.writer)? {
            Written::Value => self.first = false,
            Written::Nothing => self.writer.out.truncate(self.member),
        }
        Ok(())
    }

    fn finish(self) -> Result<Written, JsonError> {
        self.writer.out.extend_from_slice(self.close);
        Ok(Written::Value)
    }
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(self, value: $type) -> Result<Written, JsonError> { self.number(value) })*
    };
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = Written;
    type Error = JsonError;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    numbers!(serialize_i8: i8, serialize_i16: i16, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_bool(self, value: bool) -> Result<Written, JsonError> {
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
        Ok(Written::Value)
    }

    fn serialize_i32(self, value: i32) -> Result<Written, JsonError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<Written, JsonError> {
        write_i64(&mut self.out, value);
        Ok(Written::Value)
    }

    fn serialize_f32(self, value: f32) -> Result<Written, JsonError> {
        self.serialize_f64(value.into())
    }

    /// Java's form of a round number (`0.0`); JSON has no word for what is not finite.
    fn serialize_f64(self, value: f64) -> Result<Written, JsonError> {
        if !value.is_finite() {
            return Ok(Written::Nothing);
        }
        self.number(format_args!("{value:?}"))
    }

    fn serialize_char(self, value: char) -> Result<Written, JsonError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<Written, JsonError> {
        write_string(&mut self.out, value);
        Ok(Written::Value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Written, JsonError> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<Written, JsonError> {
        Ok(Written::Nothing)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Written, JsonError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Written, JsonError> {
        Ok(Written::Nothing)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Written, JsonError> {
        Ok(Written::Nothing)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Written, JsonError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Written, JsonError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Written, JsonError> {
        let mut object = self.begin(b"{", b"}");
        object.key(variant)?;
        object.value(value)?;
        object.finish()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a>, JsonError> {
        Ok(self.begin(b"[", b"]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound<'a>, JsonError> {
        Ok(self.begin(b"[", b"]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, JsonError> {
        Ok(self.begin(b"[", b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a>, JsonError> {
        self.out.push(b'{');
        write_string(&mut self.out, variant);
        Ok(self.begin(b":[", b"]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a>, JsonError> {
        Ok(self.begin(b"{", b"}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, JsonError> {
        Ok(self.begin(b"{", b"}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a>, JsonError> {
        self.out.push(b'{');
        write_string(&mut self.out, variant);
        Ok(self.begin(b":{", b"}}"))
    }
}

macro_rules! sequences {
    ($($trait:ident :: $method:ident),*) => {
        $(impl ser::$trait for Compound<'_> {
            type Ok = Written;
            type Error = JsonError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
                self.element(value)
            }

            fn end(self) -> Result<Written, JsonError> {
                self.finish()
            }
        })*
    };
}

sequences!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! structs {
    ($($trait:ident),*) => {
        $(impl ser::$trait for Compound<'_> {
            type Ok = Written;
            type Error = JsonError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), JsonError> {
                self.key(key)?;
                self.value(value)
            }

            fn end(self) -> Result<Written, JsonError> {
                self.finish()
            }
        })*
    };
}

structs!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Compound<'_> {
    type Ok = Written;
    type Error = JsonError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), JsonError> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        self.value(value)
    }

    fn end(self) -> Result<Written, JsonError> {
        self.finish()
    }
}

/// Writes keys: text and numbers in quotes, structs as they are.
struct KeyWriter<'a> {
    writer: &'a mut Writer,
}

impl KeyWriter<'_> {
    fn quoted(self, value: impl std::fmt::Display) -> Result<Written, JsonError> {
        write_string(&mut self.writer.out, &value.to_string());
        Ok(Written::Value)
    }
}

macro_rules! quoted_keys {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(self, value: $type) -> Result<Written, JsonError> { self.quoted(value) })*
    };
}

impl<'a> ser::Serializer for KeyWriter<'a> {
    type Ok = Written;
    type Error = JsonError;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    quoted_keys!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_f32: f32, serialize_f64: f64, serialize_char: char);

    fn serialize_str(self, value: &str) -> Result<Written, JsonError> {
        self.writer.serialize_str(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Written, JsonError> {
        self.writer.serialize_bytes(value)
    }

    fn serialize_none(self) -> Result<Written, JsonError> {
        self.writer.serialize_str("")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Written, JsonError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Written, JsonError> {
        self.writer.serialize_str("")
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<Written, JsonError> {
        self.writer.serialize_str(name)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Written, JsonError> {
        self.writer.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Written, JsonError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Written, JsonError> {
        self.writer
            .serialize_newtype_variant(name, index, variant, value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'a>, JsonError> {
        self.writer.serialize_seq(len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a>, JsonError> {
        self.writer.serialize_tuple(len)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Compound<'a>, JsonError> {
        self.writer.serialize_tuple_struct(name, len)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a>, JsonError> {
        self.writer
            .serialize_tuple_variant(name, index, variant, len)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'a>, JsonError> {
        self.writer.serialize_map(len)
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Compound<'a>, JsonError> {
        self.writer.serialize_struct(name, len)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a>, JsonError> {
        self.writer
            .serialize_struct_variant(name, index, variant, len)
    }
}

//! The reader of the dialect.

use std::borrow::Cow;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Error as _, Visitor};

use super::{JsonError, Scanner};
use crate::header::shorten;

/// Reads a value from JSON in RocketMQ's dialect.
///
/// # Errors
/// What is wrong with the text, where; or which member has the wrong kind of value.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, JsonError> {
    let mut parser = Parser {
        scan: Scanner::new(json),
        depth: 0,
    };
    let value = T::deserialize(&mut parser)?;
    parser.scan.end()?;
    Ok(value)
}

/// Strings are handed on as temporaries only, so that a key that is itself JSON inside a string
/// can be read by the same code.
struct Parser<'a> {
    scan: Scanner<'a>,
    depth: u32,
}

impl Parser<'_> {
    fn seq<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        if self.scan.peek() != Some(b'[') {
            return Err(self.scan.error("expected an array"));
        }
        self.scan.enter(self.depth)?;
        self.depth += 1;
        let value = visitor.visit_seq(Elements {
            parser: self,
            first: true,
            closed: false,
        })?;
        self.depth -= 1;
        Ok(value)
    }

    fn object<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        if self.scan.peek() != Some(b'{') {
            return Err(self.scan.error("expected an object"));
        }
        self.scan.enter(self.depth)?;
        self.depth += 1;
        let value = visitor.visit_map(Members {
            parser: self,
            first: true,
            closed: false,
        })?;
        self.depth -= 1;
        Ok(value)
    }
}

/// Refuses fastjson's back references. Reading one as an empty object would lose data silently.
fn refuse_reference(scan: &Scanner<'_>, key: &str) -> Result<(), JsonError> {
    if key == "$ref" {
        return Err(scan.error("a $ref to another place of the text is not supported"));
    }
    Ok(())
}

fn integer(text: &str) -> Result<i64, JsonError> {
    match text.parse() {
        Ok(value) => Ok(value),
        Err(_) => Err(JsonError::custom(format_args!(
            "'{}' is not a 64-bit integer",
            shorten(text)
        ))),
    }
}

fn boolean(text: &str) -> Result<bool, JsonError> {
    match text {
        "true" | "TRUE" | "True" | "1" => Ok(true),
        "false" | "FALSE" | "False" | "0" => Ok(false),
        _ => Err(JsonError::custom(format_args!(
            "'{}' is not true or false",
            shorten(text)
        ))),
    }
}

fn float(text: &str) -> Result<f64, JsonError> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(JsonError::custom(format_args!(
            "'{}' is not a number",
            shorten(text)
        ))),
    }
}

/// The scalar methods of a deserializer whose `text()` gives the scalar as text.
macro_rules! scalars {
    () => {
        scalars!(@integers deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
            deserialize_u8 deserialize_u16 deserialize_u32);

        fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            let text = self.text()?;
            match text.parse() {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(integer(&text)?),
            }
        }

        fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            visitor.visit_bool(boolean(&self.text()?)?)
        }

        fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.deserialize_f64(visitor)
        }

        fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            visitor.visit_f64(float(&self.text()?)?)
        }

        fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.deserialize_str(visitor)
        }

        fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.deserialize_string(visitor)
        }

        fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            match self.text()? {
                Cow::Borrowed(text) => visitor.visit_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            }
        }

        fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.deserialize_string(visitor)
        }

        fn deserialize_newtype_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            visitor: V,
        ) -> Result<V::Value, JsonError> {
            visitor.visit_newtype_struct(self)
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            _: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, JsonError> {
            visitor.visit_enum(de::value::CowStrDeserializer::new(self.text()?))
        }
    };
    (@integers $($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            visitor.visit_i64(integer(&self.text()?)?)
        })*
    };
}

impl<'a> Parser<'a> {
    fn text(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.scan.text()
    }
}

impl<'de> de::Deserializer<'de> for &mut Parser<'_> {
    type Error = JsonError;

    scalars!();

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.scan.peek() {
            Some(b'{') => self.object(visitor),
            Some(b'[') => self.seq(visitor),
            Some(b'"' | b'\'') => self.deserialize_string(visitor),
            Some(b'n') if self.scan.take_null() => visitor.visit_unit(),
            _ => match self.scan.word()? {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                word => match (word.parse(), word.parse()) {
                    (Ok(value), _) => visitor.visit_i64(value),
                    (_, Ok(value)) => visitor.visit_u64(value),
                    _ => visitor.visit_f64(float(word)?),
                },
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.scan.take_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.scan.skip(self.depth)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.seq(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.seq(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.seq(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.object(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.object(visitor)
    }
}

struct Elements<'p, 'a> {
    parser: &'p mut Parser<'a>,
    first: bool,
    closed: bool,
}

impl<'de> de::SeqAccess<'de> for Elements<'_, '_> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, JsonError> {
        while !self.closed {
            if !self.parser.scan.next_item(&mut self.first, b']')? {
                self.closed = true;
            } else if !self.parser.scan.take_null() {
                return seed.deserialize(&mut *self.parser).map(Some);
            }
        }
        Ok(None)
    }
}

struct Members<'p, 'a> {
    parser: &'p mut Parser<'a>,
    first: bool,
    closed: bool,
}

impl<'de> de::MapAccess<'de> for Members<'_, '_> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, JsonError> {
        while !self.closed {
            let depth = self.parser.depth;
            let scan = &mut self.parser.scan;
            if !scan.next_item(&mut self.first, b'}')? {
                self.closed = true;
                break;
            }
            if scan.peek() == Some(b'{') {
                let key = scan.clone();
                scan.skip(depth)?;
                scan.expect(b':')?;
                if !scan.take_null() {
                    return seed.deserialize(&mut Parser { scan: key, depth }).map(Some);
                }
            } else {
                let key = scan.key()?;
                refuse_reference(scan, &key)?;
                if !scan.take_null() {
                    return seed.deserialize(Key { text: key, depth }).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, JsonError> {
        seed.deserialize(&mut *self.parser)
    }
}

/// A member's name: text, a number, or a JSON object inside a string.
struct Key<'a> {
    text: Cow<'a, str>,
    depth: u32,
}

impl<'a> Key<'a> {
    fn text(self) -> Result<Cow<'a, str>, JsonError> {
        Ok(self.text)
    }
}

impl<'de> de::Deserializer<'de> for Key<'_> {
    type Error = JsonError;

    scalars!();

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_some(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        let mut parser = Parser {
            scan: Scanner::new(self.text.as_bytes()),
            depth: self.depth,
        };
        let value = parser.object(visitor)?;
        parser.scan.end()?;
        Ok(value)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bytes byte_buf unit unit_struct seq tuple tuple_struct
    }
}

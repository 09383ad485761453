//! The tokens of the dialect, shared by the body reader and the frame header reader.

use std::borrow::Cow;

use super::{DEPTH_MAX, JsonError};

/// A position in a JSON text. Reads never go past the end; errors carry the position.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Scanner { input, at: 0 }
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> JsonError {
        JsonError::new(self.at, message)
    }

    /// The next byte that is not whitespace, without taking it.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.input.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.take(byte) {
            return Ok(());
        }
        Err(self.unexpected(byte))
    }

    #[cold]
    fn unexpected(&self, wanted: u8) -> JsonError {
        let wanted = wanted as char;
        match self.input.get(self.at) {
            Some(found) => self.error(format!(
                "expected '{wanted}', found '{}'",
                found.escape_ascii()
            )),
            None => self.error(format!("expected '{wanted}', found the end")),
        }
    }

    /// Demands that nothing but whitespace is left.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("text after the end of the value")),
        }
    }

    /// Steps to the next member or element: `false` once `close` was taken. Wants a comma except
    /// before the first.
    #[inline]
    pub(crate) fn next_item(&mut self, first: &mut bool, close: u8) -> Result<bool, JsonError> {
        if self.take(close) {
            return Ok(false);
        }
        if !std::mem::replace(first, false) {
            self.expect(b',')?;
            // fastjson itself writes no trailing comma, but reads one.
            if self.take(close) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn run_from(&self, start: usize) -> &'a [u8] {
        self.input.get(start..self.at).unwrap_or_default()
    }

    /// Reads a quoted string, borrowing it when nothing in it is escaped.
    pub(crate) fn quoted(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let quote = self.open_quote()?;
        let run = self.plain_run(quote);
        if self.input.get(self.at) == Some(&quote) {
            self.at += 1;
            return Ok(match std::str::from_utf8(run) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => String::from_utf8_lossy(run),
            });
        }
        let mut text = String::with_capacity(run.len() + 16);
        push_lossy(&mut text, run);
        self.finish_quoted(quote, &mut text)?;
        Ok(Cow::Owned(text))
    }

    /// Reads a quoted string and appends it to `text`.
    pub(crate) fn quoted_into(&mut self, text: &mut String) -> Result<(), JsonError> {
        let quote = self.open_quote()?;
        self.finish_quoted(quote, text)
    }

    fn open_quote(&mut self) -> Result<u8, JsonError> {
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => {
                self.at += 1;
                Ok(quote)
            }
            _ => Err(self.error("expected a string")),
        }
    }

    /// Moves to the next quote or backslash and returns what was passed.
    fn plain_run(&mut self, quote: u8) -> &'a [u8] {
        let start = self.at;
        let rest = self.input.get(start..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|&b| b == quote || b == b'\\')
            .unwrap_or(rest.len());
        self.at = start + len;
        self.run_from(start)
    }

    fn finish_quoted(&mut self, quote: u8, text: &mut String) -> Result<(), JsonError> {
        loop {
            let run = self.plain_run(quote);
            push_lossy(text, run);
            match self.input.get(self.at) {
                None => return Err(self.error("a string without its closing quote")),
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(text)?;
                }
                Some(_) => {
                    self.at += 1;
                    return Ok(());
                }
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), JsonError> {
        let Some(&byte) = self.input.get(self.at) else {
            return Err(self.error("a string without its closing quote"));
        };
        self.at += 1;
        text.push(match byte {
            b'"' | b'\\' | b'/' | b'\'' => byte as char,
            b'b' => '\u{8}',
            b'f' | b'F' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'v' => '\u{b}',
            // fastjson's short form of the first control characters.
            b'0'..=b'7' => (byte - b'0') as char,
            b'x' => char::from_u32(self.hex(2)?).unwrap_or(char::REPLACEMENT_CHARACTER),
            b'u' => self.unicode_escape()?,
            _ => return Err(self.error("unknown escape in a string")),
        });
        Ok(())
    }

    /// The character of `\uXXXX`, of a pair of them for characters beyond the basic plane.
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let high = self.hex(4)?;
        if (0xD800..0xDC00).contains(&high) {
            let before_low = self.at;
            if self.input.get(self.at..self.at + 2) == Some(b"\\u") {
                self.at += 2;
                let low = self.hex(4)?;
                if (0xDC00..0xE000).contains(&low) {
                    let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                self.at = before_low;
            }
        }
        // A lone surrogate cannot be text; Java prints it as a replacement as well.
        Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self, digits: usize) -> Result<u32, JsonError> {
        let text = self
            .input
            .get(self.at..self.at + digits)
            .unwrap_or_default();
        let value = text.iter().try_fold(0u32, |value, &digit| {
            (digit as char).to_digit(16).map(|digit| value * 16 + digit)
        });
        match value {
            Some(value) if !text.is_empty() => {
                self.at += digits;
                Ok(value)
            }
            _ => Err(self.error("expected hexadecimal digits")),
        }
    }

    /// Reads a word that is not quoted: a number, `true`, `false`, `null` or an unquoted key.
    pub(crate) fn word(&mut self) -> Result<&'a str, JsonError> {
        self.peek();
        let start = self.at;
        while let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'-' | b'+' | b'.') =
            self.input.get(self.at)
        {
            self.at += 1;
        }
        match std::str::from_utf8(self.run_from(start)) {
            Ok(word) if !word.is_empty() => Ok(word),
            _ => Err(self.error("expected a value")),
        }
    }

    /// Reads a member's name, quoted or not, with its colon.
    pub(crate) fn key(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let key = match self.peek() {
            Some(b'"' | b'\'') => self.quoted()?,
            _ => Cow::Borrowed(self.word()?),
        };
        self.expect(b':')?;
        Ok(key)
    }

    /// Takes `null` if it is next.
    pub(crate) fn take_null(&mut self) -> bool {
        let found = self.peek() == Some(b'n')
            && self.input.get(self.at..self.at + 4) == Some(b"null")
            && !self
                .input
                .get(self.at + 4)
                .is_some_and(u8::is_ascii_alphanumeric);
        if found {
            self.at += 4;
        }
        found
    }

    /// Reads a string or a bare word as text: numbers and booleans may be written either way.
    pub(crate) fn text(&mut self) -> Result<Cow<'a, str>, JsonError> {
        match self.peek() {
            Some(b'"' | b'\'') => self.quoted(),
            _ => self.word().map(Cow::Borrowed),
        }
    }

    /// Reads a 32-bit integer, quoted or not.
    pub(crate) fn int32(&mut self) -> Result<i32, JsonError> {
        let text = self.text()?;
        match text.parse() {
            Ok(value) => Ok(value),
            Err(_) => {
                let text = crate::header::shorten(&text);
                Err(self.error(format!("'{text}' is not a 32-bit integer")))
            }
        }
    }

    /// Passes over one value of any kind and returns its bytes.
    pub(crate) fn skip(&mut self, depth: u32) -> Result<&'a [u8], JsonError> {
        let open = self.peek();
        let start = self.at;
        match open {
            Some(b'"' | b'\'') => {
                let quote = self.open_quote()?;
                loop {
                    self.plain_run(quote);
                    match self.input.get(self.at) {
                        None => return Err(self.error("a string without its closing quote")),
                        Some(b'\\') => self.at += 2,
                        Some(_) => break,
                    }
                }
                self.at += 1;
            }
            Some(b'[') => {
                self.enter(depth)?;
                let mut first = true;
                while self.next_item(&mut first, b']')? {
                    self.skip(depth + 1)?;
                }
            }
            Some(b'{') => {
                self.enter(depth)?;
                let mut first = true;
                while self.next_item(&mut first, b'}')? {
                    if self.peek() == Some(b'{') {
                        self.skip(depth + 1)?;
                        self.expect(b':')?;
                    } else {
                        self.key()?;
                    }
                    self.skip(depth + 1)?;
                }
            }
            _ => {
                self.word()?;
            }
        }
        Ok(self.run_from(start))
    }

    /// Takes the opening bracket that was peeked, within the nesting limit.
    pub(crate) fn enter(&mut self, depth: u32) -> Result<(), JsonError> {
        if depth >= DEPTH_MAX {
            return Err(self.error(format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.at += 1;
        Ok(())
    }
}

/// Appends bytes as text. What is not UTF-8 is replaced, as Java does: old C++ clients put bytes
/// of any encoding into message properties, and their messages must pass.
pub(crate) fn push_lossy(text: &mut String, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(valid) => text.push_str(valid),
        Err(_) => text.push_str(&String::from_utf8_lossy(bytes)),
    }
}

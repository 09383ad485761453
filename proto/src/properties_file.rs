//! Reads and writes the text of a conf file in `java.util.Properties` syntax.
//!
//! Pure: bytes in, entries out. Which keys exist and what their values mean is the caller's business; the small
//! `string`, `integer` and `boolean` readers at the end apply the original's trimming rules, which differ per type.
//!
//! | syntax | meaning |
//! |---|---|
//! | `key=value`, `key = value`, `key: value`, `key value` | one entry; blanks around the separator are dropped, blanks after the value are kept |
//! | `# text`, `! text` | comment, when it is the first character that is not blank |
//! | `\` at the end of a line | the next line goes on, without its leading blanks |
//! | `\t` `\n` `\r` `\f` `\uXXXX` | that character; before any other character the backslash is dropped |
//!
//! Bytes are ISO-8859-1, as in Java; a UTF-8 byte order mark at the start is skipped.

use std::str::FromStr;

/// One `key=value` of a file, in file order. A key may occur several times; the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, with escapes resolved. Never trimmed further than the syntax says.
    pub key: String,
    /// The value, with escapes resolved. Blanks at its end are kept: they matter to numbers and booleans.
    pub value: String,
    /// Number of the line the entry starts on, from 1.
    pub line: usize,
    /// How many lines the entry takes (more than one when continued by `\`).
    pub lines: usize,
}

/// Something in the text that is not what its author meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Problem {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong, and what was done instead.
    pub what: String,
}

/// What [`parse`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// All entries in file order.
    pub entries: Vec<Entry>,
    /// What could not be read as written. Never fatal: the entry is kept with its literal text.
    pub problems: Vec<Problem>,
}

impl Parsed {
    /// The value that counts for `key`: the last one in the file.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .rev()
            .find(|e| e.key == key)
            .map(|e| e.value.as_str())
    }

    /// The entries that count: of equal keys the last one, in the order of those.
    pub fn effective(&self) -> impl Iterator<Item = &Entry> {
        let mut last = std::collections::HashMap::with_capacity(self.entries.len());
        for (at, entry) in self.entries.iter().enumerate() {
            last.insert(entry.key.as_str(), at);
        }
        self.entries
            .iter()
            .enumerate()
            .filter(move |(at, entry)| last.get(entry.key.as_str()) == Some(at))
            .map(|(_, entry)| entry)
    }
}

/// Reads the text of a properties file. Takes any bytes.
pub fn parse(bytes: &[u8]) -> Parsed {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut parsed = Parsed::default();
    let mut lines = natural_lines(bytes).enumerate();
    while let Some((at, first)) = lines.next() {
        let first = skip_blanks(first);
        if matches!(first.first(), None | Some(b'#' | b'!')) {
            continue;
        }
        let mut text = first.to_vec();
        let mut taken = 1;
        while ends_in_continuation(&text) {
            text.pop();
            match lines.next() {
                Some((_, next)) => text.extend_from_slice(skip_blanks(next)),
                None => break,
            }
            taken += 1;
        }
        let (key, value) = split_entry(&text);
        let line = at + 1;
        let key = unescape(key, line, &mut parsed.problems);
        let value = unescape(value, line, &mut parsed.problems);
        parsed.entries.push(Entry {
            key,
            value,
            line,
            lines: taken,
        });
    }
    parsed
}

/// One line `key=value` with its line end, escaped so that [`parse`] gives back the same pair.
pub fn format(key: &str, value: &str) -> String {
    let mut out = String::with_capacity(key.len() + value.len() + 2);
    escape(key, true, &mut out);
    out.push('=');
    escape(value, false, &mut out);
    out.push('\n');
    out
}

/// The text of a file with some keys set to new values. Comments, order and all other lines stay as they are;
/// of a key that occurs several times the last occurrence is changed; keys not yet in the file are appended.
pub fn update(bytes: &[u8], changes: &[(&str, &str)]) -> Vec<u8> {
    let parsed = parse(bytes);
    let mut replacement = std::collections::HashMap::new();
    let mut appended = String::new();
    for (at, (key, value)) in changes.iter().enumerate() {
        if changes.iter().skip(at + 1).any(|(later, _)| later == key) {
            continue;
        }
        match parsed.entries.iter().rev().find(|e| e.key == *key) {
            Some(entry) => {
                replacement.insert(entry.line, (entry.lines, format(key, value)));
            }
            None => appended.push_str(&format(key, value)),
        }
    }
    let mut out = Vec::with_capacity(bytes.len() + appended.len() + 16);
    let mut skip = 0;
    for (at, line) in natural_lines_with_ends(bytes).enumerate() {
        if skip > 0 {
            skip -= 1;
        } else if let Some((lines, text)) = replacement.get(&(at + 1)) {
            out.extend_from_slice(text.as_bytes());
            skip = lines - 1;
        } else {
            out.extend_from_slice(line);
        }
    }
    if !appended.is_empty() {
        if !matches!(out.last(), None | Some(b'\n' | b'\r')) {
            out.push(b'\n');
        }
        // A file may end in a continuation; an empty line closes it, or it would swallow what is appended.
        if natural_lines(&out).last().is_some_and(ends_in_continuation) {
            out.push(b'\n');
        }
    }
    out.extend_from_slice(appended.as_bytes());
    out
}

/// The value of a text key: blanks and control characters at both ends are dropped.
pub fn string(value: &str) -> &str {
    value.trim_matches(|c: char| c <= ' ')
}

/// The value of a boolean key: `true` in any case is true, everything else, `true ` with a blank included, is false.
pub fn boolean(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// The value of a number key. Blanks are not dropped: the original does not take `10911 ` for a number either.
pub fn integer<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

fn natural_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    natural_lines_with_ends(bytes).map(|line| {
        let end = line
            .iter()
            .rposition(|b| !matches!(b, b'\n' | b'\r'))
            .map_or(0, |at| at + 1);
        line.get(..end).unwrap_or_default()
    })
}

/// Lines with their `\n`, `\r` or `\r\n`.
fn natural_lines_with_ends(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            Some(at) if rest.get(at..at + 2) == Some(b"\r\n") => at + 2,
            Some(at) => at + 1,
            None => rest.len(),
        };
        let (line, after) = rest.split_at(end);
        rest = after;
        Some(line)
    })
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let start = line
        .iter()
        .position(|b| !is_blank(*b))
        .unwrap_or(line.len());
    line.get(start..).unwrap_or_default()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\x0c')
}

/// An even number of backslashes at the end is that many escaped pairs, not a continuation.
fn ends_in_continuation(text: &[u8]) -> bool {
    text.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

fn split_entry(text: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let key_end = text
        .iter()
        .position(|&byte| {
            let ends = !escaped && (is_blank(byte) || matches!(byte, b'=' | b':'));
            escaped = byte == b'\\' && !escaped;
            ends
        })
        .unwrap_or(text.len());
    let (key, rest) = text.split_at(key_end);
    let rest = skip_blanks(rest);
    let value = match rest.split_first() {
        Some((b'=' | b':', after)) => skip_blanks(after),
        _ => rest,
    };
    (key, value)
}

fn unescape(text: &[u8], line: usize, problems: &mut Vec<Problem>) -> String {
    // UTF-16 units, because a character outside the basic plane is written as two \uXXXX.
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            units.push(u16::from(byte));
            continue;
        }
        let Some((&escaped, after)) = rest.split_first() else {
            break; // a lone backslash at the end of the file
        };
        rest = after;
        match escaped {
            b't' => units.push(u16::from(b'\t')),
            b'n' => units.push(u16::from(b'\n')),
            b'r' => units.push(u16::from(b'\r')),
            b'f' => units.push(0x0c),
            b'u' => match rest.get(..4).and_then(hex_unit) {
                Some(unit) => {
                    units.push(unit);
                    rest = rest.get(4..).unwrap_or_default();
                }
                None => {
                    problems.push(Problem {
                        line,
                        what: r"\u is not followed by four hex digits; taken as the letter u"
                            .to_owned(),
                    });
                    units.push(u16::from(b'u'));
                }
            },
            other => units.push(u16::from(other)),
        }
    }
    String::from_utf16_lossy(&units)
}

fn hex_unit(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |unit, &digit| {
        let value = char::from(digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

fn escape(text: &str, is_key: bool, out: &mut String) {
    use std::fmt::Write;
    for (at, c) in text.chars().enumerate() {
        match c {
            ' ' if is_key || at == 0 => out.push_str("\\ "),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\x0c' => out.push_str("\\f"),
            '\\' => out.push_str("\\\\"),
            '=' | ':' | '#' | '!' if is_key || at == 0 => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04X}").expect("a String takes every write");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &[u8]) -> Vec<(String, String)> {
        parse(text)
            .entries
            .into_iter()
            .map(|e| (e.key, e.value))
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = pairs(text.as_bytes());
        assert_eq!(all.len(), 1, "{text:?} gave {all:?}");
        all.remove(0)
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn every_separator_of_the_stock_confs_is_understood() {
        for text in [
            "listenPort=30911",
            "listenPort = 30911",
            "  listenPort\t=\t30911",
            "listenPort:30911",
            "listenPort: 30911\n",
            "listenPort 30911\r\n",
            "listenPort\x0c30911\r",
        ] {
            assert_eq!(one(text), pair("listenPort", "30911"), "{text:?}");
        }
        assert_eq!(one("a = = b"), pair("a", "= b"));
        assert_eq!(one("a : = b"), pair("a", "= b"));
        assert_eq!(one("lonely"), pair("lonely", ""));
        assert_eq!(one("=value"), pair("", "value"));
    }

    #[test]
    fn blanks_after_a_value_are_kept() {
        assert_eq!(one("port=1 "), pair("port", "1 "));
        assert_eq!(integer::<i32>("1 "), None);
        assert!(!boolean("true "));
        assert!(boolean("TRUE"));
        assert_eq!(string(" a b \t"), "a b");
        assert_eq!(integer::<i64>("-5"), Some(-5));
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_but_not_inside_a_continuation() {
        let text = b"# one\n\n   ! two\nkey=a\\\n  #b\nnext=1\n";
        assert_eq!(pairs(text), [pair("key", "a#b"), pair("next", "1")]);
    }

    #[test]
    fn a_line_goes_on_after_an_odd_number_of_backslashes_only() {
        assert_eq!(
            one("peers=n0-a:1;\\\n   n1-b:2"),
            pair("peers", "n0-a:1;n1-b:2")
        );
        assert_eq!(one("peers=a\\\r\n\tb"), pair("peers", "ab"));
        assert_eq!(pairs(b"a=x\\\\\nb=y"), [pair("a", "x\\"), pair("b", "y")]);
        assert_eq!(one("a=x\\"), pair("a", "x"));
        assert_eq!(one("a=x\\\n"), pair("a", "x"));
    }

    #[test]
    fn escapes_are_resolved_in_keys_and_values() {
        assert_eq!(
            one(r"a\ b\=c = d\te\u4e2d\ud83d\ude00\q"),
            pair("a b=c", "d\te中😀q")
        );
    }

    #[test]
    fn a_bad_unicode_escape_is_reported_with_its_line() {
        let parsed = parse(b"ok=1\nbad=\\u12g4");
        assert_eq!(parsed.value("bad"), Some("u12g4"));
        assert_eq!(parsed.problems.len(), 1);
        assert_eq!(parsed.problems[0].line, 2);
    }

    #[test]
    fn bytes_are_latin_1_and_a_byte_order_mark_is_skipped() {
        assert_eq!(pairs(b"\xef\xbb\xbfkey=\xe9"), [pair("key", "é")]);
    }

    #[test]
    fn the_last_of_equal_keys_counts_and_lines_are_numbered() {
        let parsed = parse(b"a=1\n#\nb=2\\\n3\na=4\n");
        assert_eq!(parsed.value("a"), Some("4"));
        let lines: Vec<_> = parsed.entries.iter().map(|e| (e.line, e.lines)).collect();
        assert_eq!(lines, [(1, 1), (3, 2), (5, 1)]);
        let effective: Vec<_> = parsed.effective().map(|e| e.value.as_str()).collect();
        assert_eq!(effective, ["23", "4"]);
    }

    #[test]
    fn update_keeps_comments_order_and_other_lines() {
        let before = b"# ports\nlistenPort = 1\nname=a\\\n  b\nlistenPort=2";
        let after = update(
            before,
            &[("listenPort", "3"), ("name", "c"), ("new", "x y")],
        );
        assert_eq!(
            String::from_utf8(after).unwrap(),
            "# ports\nlistenPort = 1\nname=c\nlistenPort=3\nnew=x y\n"
        );
        assert_eq!(update(b"", &[("a", "1"), ("a", "2")]), b"a=2\n");
        assert_eq!(update(b"b=1", &[("a", "2")]), b"b=1\na=2\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let parsed = parse(&bytes);
            let lines = natural_lines(&bytes).count();
            for entry in &parsed.entries {
                prop_assert!(entry.line >= 1 && entry.line + entry.lines <= lines + 1);
            }
        }

        #[test]
        fn what_format_writes_parse_reads_back(key in ".{0,20}", value in ".{0,40}") {
            let text = format(&key, &value);
            let parsed = parse(text.as_bytes());
            prop_assert_eq!(parsed.problems.len(), 0);
            prop_assert_eq!(parsed.entries.len(), 1);
            prop_assert_eq!((&parsed.entries[0].key, &parsed.entries[0].value), (&key, &value));
        }

        #[test]
        fn update_sets_the_keys_and_leaves_the_others(
            text in "([a-c]( ?[=:] ?)[a-z\\\\]{0,4}(\n|\r\n)|#x\n){0,8}",
            value in ".{0,10}",
        ) {
            let before = parse(text.as_bytes());
            let after = parse(&update(text.as_bytes(), &[("b", &value)]));
            prop_assert_eq!(after.value("b"), Some(value.as_str()));
            for key in ["a", "c"] {
                prop_assert_eq!(after.value(key), before.value(key));
            }
        }
    }
}

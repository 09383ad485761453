//! Messages: how they are stored, batched, flagged, named and numbered.

pub mod batch;
pub mod compression;
pub mod id;
pub mod name;
pub mod properties;
pub mod pull_sys_flag;
pub mod record;
pub mod sys_flag;

/// The code under which a consume queue files a message with these tags: Java's
/// `String.hashCode`, sign-extended; 0 without tags.
///
/// A message has one tag: the TAGS property is taken whole. Java hashes UTF-16 units, so
/// characters outside of the basic plane count twice.
pub fn tags_code(tags: &str) -> i64 {
    tags.encode_utf16()
        .fold(0i32, |hash, unit| {
            hash.wrapping_mul(31).wrapping_add(unit.into())
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::tags_code;

    #[test]
    fn tags_code_is_javas_hash() {
        assert_eq!(tags_code(""), 0);
        assert_eq!(tags_code("TagA"), 2_598_919);
        assert_eq!(tags_code("a"), 97);
        // "polygenelubricants".hashCode() is Integer.MIN_VALUE.
        assert_eq!(tags_code("polygenelubricants"), i64::from(i32::MIN));
        // U+1F600 is the units D83D DE00.
        assert_eq!(tags_code("\u{1F600}"), 0xD83D * 31 + 0xDE00);
    }
}

//! Filtering by tag.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::message::tags_code;

/// Why a tag expression is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FilterError {
    /// Separators without any tag.
    #[error("the subscription names no tag")]
    NoTags,
}

/// Which tags a consumer wants.
///
/// The broker filters by code, which tags may share; clients filter the rest by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagFilter {
    /// Everything (`*`).
    All,
    /// Messages with one of these tags.
    Tags {
        /// The tags by name.
        tags: BTreeSet<String>,
        /// Their codes.
        codes: BTreeSet<i64>,
    },
}

impl TagFilter {
    /// Reads `*`, an empty text (the same), or tags joined by `||`.
    ///
    /// # Errors
    /// When there are separators but no tag.
    pub fn parse(expression: &str) -> Result<TagFilter, FilterError> {
        if expression.is_empty() || expression == "*" {
            return Ok(TagFilter::All);
        }
        let tags = expression
            .split("||")
            .map(str::trim)
            .filter(|tag| !tag.is_empty());
        let tags: BTreeSet<String> = tags.map(str::to_owned).collect();
        if tags.is_empty() {
            return Err(FilterError::NoTags);
        }
        let codes = tags.iter().map(|tag| tags_code(tag)).collect();
        Ok(TagFilter::Tags { tags, codes })
    }

    /// Whether a message filed under this code may be wanted.
    pub fn matches_code(&self, code: i64) -> bool {
        match self {
            TagFilter::All => true,
            TagFilter::Tags { codes, .. } => codes.contains(&code),
        }
    }

    /// Whether a message with this tag is wanted; an empty tag is no tag.
    pub fn matches_tag(&self, tag: &str) -> bool {
        match self {
            TagFilter::All => true,
            TagFilter::Tags { tags, .. } => tags.contains(tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_matches_all() {
        for text in ["*", ""] {
            let filter = TagFilter::parse(text).unwrap();
            assert!(filter.matches_code(0) && filter.matches_code(-5));
            assert!(filter.matches_tag("") && filter.matches_tag("x"));
        }
    }

    #[test]
    fn tags_are_trimmed_and_matched_by_name_or_code() {
        let filter = TagFilter::parse(" TagA||  TagB || ").unwrap();
        assert!(filter.matches_tag("TagA") && filter.matches_tag("TagB"));
        assert!(!filter.matches_tag("TagC") && !filter.matches_tag(""));
        assert!(filter.matches_code(tags_code("TagB")) && !filter.matches_code(0));
        // "Aa" and "BB" have the same code, so only the name tells them apart.
        let filter = TagFilter::parse("Aa").unwrap();
        assert!(filter.matches_code(tags_code("BB")) && !filter.matches_tag("BB"));
    }

    #[test]
    fn separators_alone_are_refused() {
        for text in ["||", " || ", " "] {
            assert_eq!(TagFilter::parse(text), Err(FilterError::NoTags));
        }
    }
}

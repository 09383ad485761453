//! Forms of text that several commands share. Pure.

use serde_json::Value;

/// The first `width` characters.
#[must_use]
pub fn front(text: &str, width: usize) -> &str {
    match text.char_indices().nth(width) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// JSON in the layout of the original's tools: tabs, nothing after a colon, number keys without quotes.
#[must_use]
pub fn pretty(value: &Value) -> String {
    let mut text = String::new();
    push_pretty(&mut text, value, 0);
    text
}

fn push_pretty(text: &mut String, value: &Value, depth: usize) {
    let new_line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n('\t', depth));
    };
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('{');
            for (index, (key, member)) in members.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                new_line(text, depth + 1);
                if key.parse::<i64>().is_ok() {
                    text.push_str(key);
                } else {
                    text.push_str(&Value::from(key.as_str()).to_string());
                }
                text.push(':');
                push_pretty(text, member, depth + 1);
            }
            new_line(text, depth);
            text.push('}');
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                new_line(text, depth + 1);
                push_pretty(text, item, depth + 1);
            }
            new_line(text, depth);
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

/// Name of a RocketMQ version by its number (RocketMQ: `MQVersion`).
///
/// Versions are numbered in order, each release after its snapshot; the first sixteen, test releases of
/// 3.0.0, follow no pattern.
#[must_use]
pub fn version_name(number: i32) -> String {
    const FIRST: [&str; 16] = [
        "V3_0_0_SNAPSHOT",
        "V3_0_0_ALPHA1",
        "V3_0_0_BETA1",
        "V3_0_0_BETA2",
        "V3_0_0_BETA3",
        "V3_0_0_BETA4",
        "V3_0_0_BETA5",
        "V3_0_0_BETA6_SNAPSHOT",
        "V3_0_0_BETA6",
        "V3_0_0_BETA7_SNAPSHOT",
        "V3_0_0_BETA7",
        "V3_0_0_BETA8_SNAPSHOT",
        "V3_0_0_BETA8",
        "V3_0_0_BETA9_SNAPSHOT",
        "V3_0_0_BETA9",
        "V3_0_0_FINAL",
    ];
    let Ok(number) = usize::try_from(number) else {
        return FIRST[0].to_owned();
    };
    if let Some(name) = FIRST.get(number) {
        return (*name).to_owned();
    }
    let snapshot = if number % 2 == 0 { "_SNAPSHOT" } else { "" };
    let release = (number - FIRST.len()) / 2;
    // Major, minor, first and last patch of each run of releases.
    let runs = std::iter::once((3, 0, 1, 15))
        .chain((1..=2).map(|minor| (3, minor, 0, 9)))
        .chain((3..=9).map(|minor| (3, minor, 1, 9)))
        .chain((4..=5).flat_map(|major| (0..=9).map(move |minor| (major, minor, 0, 9))));
    let mut before = 0;
    for (major, minor, first, last) in runs {
        let count = last - first + 1;
        if release < before + count {
            let patch = first + release - before;
            return format!("V{major}_{minor}_{patch}{snapshot}");
        }
        before += count;
    }
    "HIGHER_VERSION".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_the_original_s_names() {
        for (number, name) in [
            (0, "V3_0_0_SNAPSHOT"),
            (15, "V3_0_0_FINAL"),
            (16, "V3_0_1_SNAPSHOT"),
            (37, "V3_0_11"),
            (62, "V3_1_8_SNAPSHOT"),
            (121, "V3_4_9"),
            (137, "V3_5_8"),
            (213, "V4_0_0"),
            (401, "V4_9_4"),
            (409, "V4_9_8"),
            (413, "V5_0_0"),
            (475, "V5_3_1"),
            (479, "V5_3_3"),
            (611, "V5_9_9"),
            (612, "HIGHER_VERSION"),
            (i32::MAX, "HIGHER_VERSION"),
            (-1, "V3_0_0_SNAPSHOT"),
        ] {
            assert_eq!(version_name(number), name, "{number}");
        }
    }

    #[test]
    fn cutting_respects_characters() {
        assert_eq!(front("abc", 2), "ab");
        assert_eq!(front("äöü", 2), "äö");
        assert_eq!(front("ab", 64), "ab");
    }

    #[test]
    fn empty_containers_stay_on_their_line() {
        assert_eq!(
            pretty(&serde_json::json!({"a": {}, "b": []})),
            "{\n\t\"a\":{},\n\t\"b\":[]\n}"
        );
    }
}

//! Keys that decide what stays on the disk, and how fast it is looked after.

use std::time::Duration;

use raftmq_store::retention::RetentionOptions;

use super::checked::{count, millis};
use super::values::Values;

/// What stays in the commit log, and how often that is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct RetentionConfig {
    /// `fileReservedTime`, `deleteWhen`, the ratios, `cleanFileForciblyEnable`, `deleteFileBatchMax`.
    pub options: RetentionOptions,
    /// `cleanResourceInterval`, 0.1 s to 1 h: time between two looks.
    pub period: Duration,
    /// `deleteCommitLogFilesInterval`, up to 1 min: pause after each segment of a round.
    pub pause: Duration,
}

/// Hours that a day has.
const HOURS: u8 = 24;
/// A hundred years.
const RESERVED_HOURS_MAX: i64 = 100 * 366 * 24;

pub(super) fn retention(values: &mut Values) -> RetentionConfig {
    let hours = values.number("fileReservedTime", 0, RESERVED_HOURS_MAX);
    RetentionConfig {
        options: RetentionOptions {
            reserved: Duration::from_secs(hours.unsigned_abs() * 3600),
            hours: delete_when(values),
            used_max: ratio(values, "diskMaxUsedSpaceRatio", 10, 95),
            forcibly_above: ratio(values, "diskSpaceCleanForciblyRatio", 30, 85),
            warning: ratio(values, "diskSpaceWarningLevelRatio", 35, 90),
            may_force: values.flag("cleanFileForciblyEnable"),
            batch_max: count(values, "deleteFileBatchMax", 1, 1000),
        },
        period: millis(values, "cleanResourceInterval", 100, 3_600_000),
        pause: millis(values, "deleteCommitLogFilesInterval", 0, 60_000),
    }
}

fn ratio(values: &mut Values, key: &str, min: i32, max: i32) -> f64 {
    let percent = values.number(key, min.into(), max.into());
    f64::from(i32::try_from(percent).unwrap_or(max)) / 100.0
}

/// `deleteWhen`: hours, `;` between them. One that is none never comes; without any the default holds.
fn delete_when(values: &mut Values) -> Vec<u8> {
    let text = values.text("deleteWhen").to_owned();
    let mut hours = Vec::new();
    for part in text.split(';').map(str::trim) {
        match part.parse::<u8>() {
            Ok(hour) if hour < HOURS => hours.push(hour),
            _ if part.is_empty() => {}
            _ => values.warnings.push(format!(
                "configuration key deleteWhen = '{text}': '{part}' is not an hour from 00 to 23"
            )),
        }
    }
    if hours.is_empty() {
        values.warnings.push(format!(
            "configuration key deleteWhen = '{text}' names no hour; 04 is used"
        ));
        values.set("deleteWhen", "04");
        hours.push(4);
    }
    hours
}

#[cfg(test)]
mod tests {
    use raftmq_proto::properties_file;

    use super::*;

    fn read(text: &str) -> (RetentionConfig, String) {
        let mut values = Values::from_file(&properties_file::parse(text.as_bytes()));
        let config = retention(&mut values);
        (config, values.warnings.join("\n"))
    }

    #[test]
    fn defaults_are_the_original_s() {
        let (config, warnings) = read("");
        assert_eq!(config.options, RetentionOptions::default());
        assert_eq!(config.period, Duration::from_secs(10));
        assert_eq!(config.pause, Duration::from_millis(100));
        assert_eq!(warnings, "");
    }

    #[test]
    fn values_are_taken_and_brought_into_their_bounds() {
        let (config, warnings) = read(
            "fileReservedTime=48\ndeleteWhen=04; 16\ndiskMaxUsedSpaceRatio=99\ndiskSpaceCleanForciblyRatio=90\n\
             diskSpaceWarningLevelRatio=95\ncleanFileForciblyEnable=false\n",
        );
        let options = config.options;
        assert_eq!(options.reserved, Duration::from_secs(48 * 3600));
        assert_eq!(options.hours, [4, 16]);
        assert_eq!(
            (options.used_max, options.forcibly_above, options.warning),
            (0.95, 0.85, 0.90)
        );
        assert!(!options.may_force);
        for key in ["diskMaxUsedSpaceRatio", "Forcibly", "WarningLevel"] {
            assert!(warnings.contains(key), "{key} in {warnings}");
        }
    }

    #[test]
    fn hours_that_are_none_are_named() {
        for (text, hours, part) in [
            ("25;04", vec![4], "'25' is not an hour"),
            ("noon", vec![4], "names no hour"),
            (";", vec![4], "names no hour"),
            ("00;23;", vec![0, 23], ""),
        ] {
            let (config, warnings) = read(&format!("deleteWhen={text}\n"));
            assert_eq!(config.options.hours, hours, "{text}");
            assert!(warnings.contains(part), "{text}: {warnings}");
        }
    }
}

//! Local civil time. RocketMQ's tools print times in the machine's zone and its unique keys count
//! from the local start of the month; the standard library knows no zones, the C library does.

/// A moment in the machine's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Full year, e.g. 2026.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60 (leap second).
    pub second: u32,
    /// 0 to 999.
    pub millisecond: u32,
}

impl LocalTime {
    /// The local time of `epoch_ms` milliseconds since 1970-01-01 UTC; the epoch itself when the
    /// value is outside what the C library can express.
    #[must_use]
    pub fn from_epoch_ms(epoch_ms: i64) -> LocalTime {
        let seconds = epoch_ms.div_euclid(1000);
        let millisecond = epoch_ms.rem_euclid(1000) as u32;
        // SAFETY: an all-zero `tm` is a valid value of the C struct: integers and a nullable pointer.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        let time: libc::time_t = seconds;
        // SAFETY: both pointers are to live locals of the right types for the length of the call;
        // `localtime_r` writes only through the second one.
        let answer = unsafe { libc::localtime_r(&raw const time, &raw mut tm) };
        if answer.is_null() {
            return LocalTime {
                year: 1970,
                month: 1,
                day: 1,
                hour: 0,
                minute: 0,
                second: 0,
                millisecond: 0,
            };
        }
        LocalTime {
            year: tm.tm_year + 1900,
            month: tm.tm_mon as u32 + 1,
            day: tm.tm_mday as u32,
            hour: tm.tm_hour as u32,
            minute: tm.tm_min as u32,
            second: tm.tm_sec as u32,
            millisecond,
        }
    }

    /// `yyyy-MM-dd HH:mm:ss`.
    #[must_use]
    pub fn to_seconds_text(self) -> String {
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            self.year, self.month, self.day, self.hour, self.minute, self.second
        )
    }

    /// `yyyy-MM-dd HH:mm:ss,SSS`.
    #[must_use]
    pub fn to_millis_text(self) -> String {
        format!("{},{:03}", self.to_seconds_text(), self.millisecond)
    }

    /// Milliseconds since the local start of this moment's month (an hour off in a month in which
    /// the clocks change, which no reader of it can notice).
    #[must_use]
    pub fn ms_of_month(self) -> i64 {
        let hours = i64::from(self.day - 1) * 24 + i64::from(self.hour);
        let seconds = (hours * 60 + i64::from(self.minute)) * 60 + i64::from(self.second);
        seconds * 1000 + i64::from(self.millisecond)
    }
}

/// Milliseconds since 1970-01-01 UTC, now.
#[must_use]
pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_tools_forms() {
        let time = LocalTime {
            year: 2026,
            month: 3,
            day: 4,
            hour: 5,
            minute: 6,
            second: 7,
            millisecond: 8,
        };
        assert_eq!(time.to_seconds_text(), "2026-03-04 05:06:07");
        assert_eq!(time.to_millis_text(), "2026-03-04 05:06:07,008");
        assert_eq!(time.ms_of_month(), ((3 * 24 + 5) * 60 + 6) * 60_000 + 7_008);
    }

    #[test]
    fn milliseconds_survive_also_before_the_epoch() {
        assert_eq!(LocalTime::from_epoch_ms(1_234).millisecond, 234);
        assert_eq!(LocalTime::from_epoch_ms(-1).millisecond, 999);
    }

    #[test]
    fn absurd_times_do_not_panic() {
        let _epoch = LocalTime::from_epoch_ms(i64::MAX);
        let _before = LocalTime::from_epoch_ms(i64::MIN);
    }
}

//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Hour of the day in the machine's time zone, 0 to 23; that of UTC when the system does not tell.
pub(crate) fn local_hour(now_ms: i64) -> u8 {
    let time: libc::time_t = now_ms.div_euclid(1000);
    // SAFETY: an all-zero `tm` is a valid value of the C struct: integers and a nullable pointer.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right types; only the second is written to.
    let known = unsafe { !libc::localtime_r(&raw const time, &raw mut parts).is_null() };
    let utc = time.div_euclid(3600).rem_euclid(24);
    let hour = if known { i64::from(parts.tm_hour) } else { utc };
    u8::try_from(hour).unwrap_or(0)
}

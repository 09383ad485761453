//! What a failed attempt means for the next one. Pure: no sockets, no clocks.
//!
//! A send ends at its deadline in any case; within it, attempts that only say "not here, not now"
//! (a dead connection, a member without a leader, a busy leader) may repeat as often as the time
//! allows, since a failover is over in a second or so. Attempts whose answer concerns the message or
//! whose outcome is unknown are counted, as in RocketMQ (three attempts by default).

use std::time::Duration;

use raftmq_proto::code::response;

/// What to do after an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The member cannot serve: go to another one at once, look for a new route, do not count.
    Elsewhere,
    /// Try again, within the number of attempts allowed.
    Again,
    /// Trying again cannot help.
    GiveUp,
}

/// Judges an error answer by its code (RocketMQ: `retryResponseCodes`).
pub(crate) fn judge_code(code: i32) -> Verdict {
    match code {
        response::SYSTEM_BUSY | response::SERVICE_NOT_AVAILABLE | response::GO_AWAY => {
            Verdict::Elsewhere
        }
        response::SYSTEM_ERROR
        | response::NO_PERMISSION
        | response::TOPIC_NOT_EXIST
        | response::NO_BUYER_ID
        | response::NOT_IN_CURRENT_UNIT => Verdict::Again,
        _ => Verdict::GiveUp,
    }
}

/// Longest wait for one attempt of a call that may take `timeout` in all.
///
/// A dead machine (not just a dead process) answers nothing, not even a reset: half the time is kept
/// for another member. Never below half a second, which a healthy but loaded member may need, and
/// never above three, RocketMQ's own send timeout.
pub(crate) fn attempt_timeout(timeout: Duration, remaining: Duration) -> Duration {
    let share = (timeout / 2).clamp(Duration::from_millis(500), Duration::from_secs(3));
    share.min(remaining)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_fall_into_their_classes() {
        for code in [2, 14, 1500] {
            assert_eq!(judge_code(code), Verdict::Elsewhere, "{code}");
        }
        for code in [1, 16, 17, 204, 205] {
            assert_eq!(judge_code(code), Verdict::Again, "{code}");
        }
        for code in [3, 13, 26, 29, 501, 604, -7] {
            assert_eq!(judge_code(code), Verdict::GiveUp, "{code}");
        }
    }

    #[test]
    fn an_attempt_leaves_time_for_another_member() {
        let secs = Duration::from_secs;
        assert_eq!(
            attempt_timeout(secs(3), secs(3)),
            Duration::from_millis(1500)
        );
        assert_eq!(attempt_timeout(secs(20), secs(20)), secs(3));
        assert_eq!(
            attempt_timeout(secs(3), Duration::from_millis(40)),
            Duration::from_millis(40)
        );
        assert_eq!(
            attempt_timeout(Duration::from_millis(600), Duration::from_millis(600)),
            Duration::from_millis(500)
        );
    }
}

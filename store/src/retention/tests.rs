//! Tables for each rule, and properties over arbitrary logs and disks.

use proptest::prelude::*;

use super::*;

const HOUR_MS: i64 = 3_600_000;
const GIB: u64 = 1 << 30;

/// A log of 1 GiB segments, each filled in an hour; the last one is being written at `now`.
fn hourly(count: u64) -> Vec<SegmentAge> {
    let segment = |n: u64| SegmentAge {
        start: n * GIB,
        bytes: GIB,
        first_ms: Some(i64::try_from(n).unwrap() * HOUR_MS),
    };
    (0..count).map(segment).collect()
}

fn disk(total: u64, used: u64) -> Option<DiskSpace> {
    Some(DiskSpace {
        total: total * GIB,
        available: (total - used) * GIB,
    })
}

fn both(space: Option<DiskSpace>) -> Disks {
    Disks {
        log: space,
        state: space,
    }
}

/// 100 hours of log, at an hour that is none of `deleteWhen`.
fn round() -> Round {
    Round {
        now_ms: 99 * HOUR_MS,
        hour: 12,
        is_manual: false,
        log_start: 0,
        keep_from: u64::MAX,
    }
}

fn at(hour: u8) -> Round {
    Round { hour, ..round() }
}

/// Segments that go, and why.
fn outcome(trim: Option<Trim>) -> (usize, Option<Cause>) {
    let count = trim.as_ref().map_or(0, |trim| trim.ends.len());
    (count, trim.map(|trim| trim.cause))
}

#[test]
fn rules_by_hour_use_and_switches() {
    let options = RetentionOptions::default();
    let all = RetentionOptions {
        batch_max: usize::MAX,
        ..options.clone()
    };
    let gentle = RetentionOptions {
        may_force: false,
        ..all.clone()
    };
    let manual = Round {
        is_manual: true,
        ..round()
    };
    let twice = RetentionOptions {
        hours: vec![4, 16],
        ..all
    };
    let low_warning = RetentionOptions {
        warning: 0.40,
        ..all.clone()
    };
    // Of 100 hourly segments, those whose successor began 72 h ago: 0 to 26.
    let expired = 27;
    for (what, round, disks, options, wanted) in [
        (
            "nothing to do",
            round(),
            both(disk(1000, 100)),
            &all,
            (0, None),
        ),
        (
            "the hour",
            at(4),
            both(disk(1000, 100)),
            &all,
            (expired, Some(Cause::Hour)),
        ),
        (
            "ten a round",
            at(4),
            both(disk(1000, 100)),
            &options,
            (10, Some(Cause::Hour)),
        ),
        (
            "the second hour",
            at(16),
            both(disk(1000, 100)),
            &twice,
            (expired, Some(Cause::Hour)),
        ),
        (
            "no hour of two",
            at(5),
            both(disk(1000, 100)),
            &twice,
            (0, None),
        ),
        (
            "an operator",
            manual,
            both(disk(1000, 100)),
            &all,
            (expired, Some(Cause::Manual)),
        ),
        (
            "exactly the ratio",
            round(),
            both(disk(100, 75)),
            &all,
            (0, None),
        ),
        (
            "above the ratio",
            round(),
            both(disk(100, 76)),
            &all,
            (expired, Some(Cause::Space)),
        ),
        (
            "use unknown",
            round(),
            both(None),
            &all,
            (expired, Some(Cause::Space)),
        ),
        (
            "state above the ratio",
            round(),
            Disks {
                log: disk(1000, 100),
                state: disk(100, 76),
            },
            &all,
            (expired, Some(Cause::Space)),
        ),
        (
            "forced, expired suffice",
            round(),
            both(disk(100, 100)),
            &all,
            (expired, Some(Cause::Space)),
        ),
        (
            "forced",
            round(),
            both(disk(200, 200)),
            &all,
            (30, Some(Cause::Forced)),
        ),
        (
            "forced, ten a round",
            round(),
            both(disk(200, 200)),
            &options,
            (10, Some(Cause::Space)),
        ),
        (
            "forced is off",
            round(),
            both(disk(200, 200)),
            &gentle,
            (expired, Some(Cause::Space)),
        ),
        (
            "forced, not the last",
            round(),
            both(disk(1000, 1000)),
            &all,
            (99, Some(Cause::Forced)),
        ),
        (
            "warning below forced",
            round(),
            both(disk(200, 140)),
            &low_warning,
            (60, Some(Cause::Forced)),
        ),
    ] {
        let trim = plan(&hourly(100), &round, &disks, options);
        assert_eq!(outcome(trim), wanted, "{what}");
    }
}

#[test]
fn young_segments_go_only_for_want_of_room_and_only_as_many_as_needed() {
    let young = Round {
        now_ms: 9 * HOUR_MS,
        hour: 4,
        ..round()
    };
    let options = RetentionOptions::default();
    let counts = |disks: Disks| outcome(plan(&hourly(10), &young, &disks, &options)).0;
    assert_eq!(counts(both(disk(100, 85))), 0);
    assert_eq!(counts(both(disk(100, 86))), 1);
    assert_eq!(counts(both(disk(100, 88))), 3);
    assert_eq!(counts(both(disk(100, 100))), 9);
    // How much a state database gives back is not known: one at a time.
    let state_full = Disks {
        log: disk(100, 10),
        state: disk(100, 99),
    };
    assert_eq!(counts(state_full), 1);
}

#[test]
fn what_is_given_up_already_counts_as_room_but_not_twice() {
    let options = RetentionOptions::default();
    let young = Round {
        now_ms: 9 * HOUR_MS,
        log_start: 3 * GIB,
        ..round()
    };
    let full = both(disk(100, 88));
    assert_eq!(plan(&hourly(10), &young, &full, &options), None);
    let fuller = both(disk(100, 90));
    let trim = plan(&hourly(10), &young, &fuller, &options).unwrap();
    assert_eq!((trim.ends, trim.bytes), (vec![4 * GIB, 5 * GIB], 2 * GIB));
    let state_full = Disks {
        log: disk(100, 10),
        state: disk(100, 99),
    };
    assert_eq!(plan(&hourly(10), &young, &state_full, &options), None);
}

#[test]
fn something_that_is_needed_keeps_its_segment() {
    let options = RetentionOptions::default();
    for (keep_from, wanted) in [(0, 0), (1, 0), (GIB - 1, 0), (GIB, 1), (5 * GIB + 7, 5)] {
        let round = Round { keep_from, ..at(4) };
        let trim = plan(&hourly(100), &round, &both(disk(100, 99)), &options);
        assert_eq!(outcome(trim).0, wanted, "{keep_from}");
    }
}

#[test]
fn age_is_that_of_the_next_record_whichever_segment_has_it() {
    let options = RetentionOptions::default();
    let count = |first: &[Option<i64>]| {
        let segment = |(n, first_ms): (usize, &Option<i64>)| SegmentAge {
            start: n as u64 * GIB,
            bytes: GIB,
            first_ms: *first_ms,
        };
        let segments: Vec<_> = first.iter().enumerate().map(segment).collect();
        outcome(plan(&segments, &at(4), &both(disk(100, 10)), &options)).0
    };
    let (old, young) = (Some(0), Some(50 * HOUR_MS));
    assert_eq!(count(&[]), 0);
    assert_eq!(count(&[old]), 0);
    assert_eq!(count(&[old, old]), 1);
    assert_eq!(count(&[old, young]), 0);
    // Only operations in between.
    assert_eq!(count(&[old, None, old, young]), 2);
    assert_eq!(count(&[old, None, young]), 0);
    // Nothing tells when the first segment ended.
    assert_eq!(count(&[old, None, None]), 0);
    assert_eq!(count(&[None, None]), 0);
    // A young one protects what is behind it; a clock that ran ahead counts.
    assert_eq!(count(&[old, young, old, old]), 0);
    assert_eq!(count(&[young, old, old]), 0);
    assert_eq!(count(&[Some(i64::MIN), Some(i64::MAX)]), 0);
    // To the millisecond.
    let edge = 99 * HOUR_MS - 72 * HOUR_MS;
    assert_eq!(count(&[old, Some(edge)]), 1);
    assert_eq!(count(&[old, Some(edge + 1)]), 0);
}

#[test]
fn sends_are_refused_above_the_warning_ratio_of_either_disk() {
    let options = RetentionOptions::default();
    assert!(!is_full(&both(disk(100, 90)), &options));
    assert!(is_full(&both(disk(100, 91)), &options));
    let state = Disks {
        log: disk(100, 1),
        state: disk(100, 91),
    };
    assert!(is_full(&state, &options));
    assert!(!is_full(&both(None), &options));
    assert!(wants_room(&both(None), &options));
}

fn segments() -> impl Strategy<Value = Vec<SegmentAge>> {
    let one = (1..4u64, proptest::option::weighted(0.8, -5..200i64));
    proptest::collection::vec(one, 0..30).prop_map(|parts| {
        let mut start = 0;
        let segment = |(gib, hour): (u64, Option<i64>)| {
            let bytes = gib * GIB;
            let segment = SegmentAge {
                start,
                bytes,
                first_ms: hour.map(|hour| hour * HOUR_MS),
            };
            start += bytes;
            segment
        };
        parts.into_iter().map(segment).collect()
    })
}

fn space() -> impl Strategy<Value = Option<DiskSpace>> {
    proptest::option::weighted(0.9, (0..=100u64).prop_map(|used| disk(100, used).unwrap()))
}

prop_compose! {
    fn rounds()(
        now in 0..300i64,
        hour in 0..24u8,
        is_manual in any::<bool>(),
        log_start in 0..20u64,
        keep_from in prop_oneof![Just(u64::MAX), (0..60u64).prop_map(|gib| gib * GIB + 5)],
    ) -> Round {
        Round { now_ms: now * HOUR_MS, hour, is_manual, log_start: log_start * GIB, keep_from }
    }
}

prop_compose! {
    fn options()(
        reserved in 0..200u64,
        used_max in 10..95u32,
        forcibly in 30..85u32,
        warning in 35..90u32,
        may_force in any::<bool>(),
        batch_max in 1..20usize,
    ) -> RetentionOptions {
        RetentionOptions {
            reserved: Duration::from_secs(reserved * 3600),
            hours: vec![4, 16],
            used_max: f64::from(used_max) / 100.0,
            forcibly_above: f64::from(forcibly) / 100.0,
            warning: f64::from(warning) / 100.0,
            may_force,
            batch_max,
        }
    }
}

/// Where the log would begin after a round.
fn begin(segments: &[SegmentAge], round: &Round, disks: &Disks, options: &RetentionOptions) -> u64 {
    plan(segments, round, disks, options).map_or(round.log_start, |trim| trim.position())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn goes_only_what_may_go_and_no_more_than_needed(
        segments in segments(),
        round in rounds(),
        log in space(),
        state in space(),
        options in options(),
    ) {
        let disks = Disks { log, state };
        let Some(trim) = plan(&segments, &round, &disks, &options) else {
            return Ok(());
        };
        let active = segments.last().unwrap().start;
        prop_assert!(trim.position() > round.log_start && trim.position() <= active);
        prop_assert!(trim.position() <= round.keep_from);
        prop_assert!(trim.ends.len() <= options.batch_max);
        let starts: Vec<u64> = segments.iter().map(|segment| segment.start).collect();
        let first = starts.iter().position(|start| *start == trim.ends[0]).unwrap();
        prop_assert_eq!(&starts[first..first + trim.ends.len()], &trim.ends[..], "a gap");
        prop_assert!(starts[first - 1..first].iter().all(|start| *start <= round.log_start));

        let going = &segments[first - 1..first - 1 + trim.ends.len()];
        prop_assert_eq!(trim.bytes, going.iter().map(|segment| segment.bytes).sum::<u64>());
        let reserved = i64::try_from(options.reserved.as_millis()).unwrap();
        let is_young = |segment: &SegmentAge| {
            segment.first_ms.is_some_and(|first_ms| first_ms + reserved > round.now_ms)
        };
        let young = going.iter().any(is_young);
        prop_assert!(!young || trim.cause == Cause::Forced);
        if trim.cause == Cause::Forced {
            prop_assert!(options.may_force);
            let limit = options.forcibly_above.min(options.warning);
            let given_up: u64 = segments[..first - 1].iter().map(|segment| segment.bytes).sum();
            let before_last = trim.bytes - going.last().unwrap().bytes + given_up;
            let still_full = log.is_some_and(|log| {
                let available = log.available + before_last;
                DiskSpace { available, ..log }.used_ratio() > limit
            });
            let state_full = state.is_some_and(|state| state.used_ratio() > limit);
            prop_assert!(still_full || (state_full && trim.ends.len() == 1));
        }
    }

    #[test]
    fn never_less_when_later_fuller_or_kept_shorter(
        segments in segments(),
        round in rounds(),
        used in 0..=100u64,
        more in 0..=100u64,
        later in 0..200i64,
        options in options(),
    ) {
        let disks = both(disk(100, used));
        let now = begin(&segments, &round, &disks, &options);
        let then = Round { now_ms: round.now_ms + later * HOUR_MS, ..round };
        prop_assert!(begin(&segments, &then, &disks, &options) >= now);
        let fuller = both(disk(100, (used + more).min(100)));
        prop_assert!(begin(&segments, &round, &fuller, &options) >= now);
        let shorter = RetentionOptions { reserved: options.reserved / 2, ..options };
        prop_assert!(begin(&segments, &round, &disks, &shorter) >= now);
    }

    #[test]
    fn rounds_come_to_an_end_and_files_that_linger_change_nothing(
        segments in segments(),
        round in rounds(),
        used in 0..=100u64,
        options in options(),
    ) {
        let disks = both(disk(100, used));
        let rest = |mut round: Round, files_go: bool| {
            let mut files = segments.clone();
            let mut disks = disks;
            for _ in 0..=segments.len() {
                let Some(trim) = plan(&files, &round, &disks, &options) else {
                    return Some(round.log_start);
                };
                round.log_start = trim.position();
                if files_go {
                    let gone = files.iter().filter(|file| file.start < round.log_start);
                    let freed: u64 = gone.map(|file| file.bytes).sum();
                    files.retain(|file| file.start >= round.log_start);
                    let grow = |space: DiskSpace| DiskSpace {
                        available: (space.available + freed).min(space.total),
                        ..space
                    };
                    disks = both(disks.log.map(grow));
                }
            }
            None
        };
        let lingering = rest(Round { log_start: 0, ..round }, false);
        let removed = rest(Round { log_start: 0, ..round }, true);
        prop_assert!(lingering.is_some() && removed.is_some());
        // As use falls below `diskMaxUsedSpaceRatio`, expired segments may stay; never the reverse.
        prop_assert!(lingering >= removed);
    }
}

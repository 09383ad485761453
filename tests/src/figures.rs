//! Times, their percentiles and the table that shows them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::time::Duration;

/// Prints a line now, also from a test that passes: the test runner holds back only what goes through `print!`.
pub fn say(line: impl fmt::Display) {
    // Nobody is left to tell when standard error is closed.
    writeln!(std::io::stderr().lock(), "{line}").ok();
}

/// A series of times.
#[derive(Debug, Clone, Default)]
pub struct Series {
    times: Vec<Duration>,
}

impl Series {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The smallest time that `percent` of all do not exceed (nearest rank); `None` when there is none.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.max(1) - 1).copied()
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n {}", self.times.len())?;
        for (name, percent) in [
            ("min", 0),
            ("p50", 50),
            ("p90", 90),
            ("p99", 99),
            ("max", 100),
        ] {
            if let Some(time) = self.percentile(percent) {
                write!(f, "  {name} {}", ms(time))?;
            }
        }
        Ok(())
    }
}

/// A time in milliseconds.
pub fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1_000.0)
}

/// What one fault of the leader cost.
#[derive(Debug, Clone, Copy)]
pub struct Failover {
    /// From the fault until a nameserver names another member as the leader.
    pub registered: Duration,
    /// From the fault until our client's first send was acknowledged by another member.
    pub first_ack: Duration,
    /// From the fault until every one of our producers had a send acknowledged by another member.
    pub all_acked: Duration,
    /// From the fault until a send of the Java producer was acknowledged, where one runs.
    pub java_ack: Option<Duration>,
}

/// What several of them cost.
#[derive(Debug, Clone, Default)]
pub struct Failovers {
    registered: Series,
    first_ack: Series,
    all_acked: Series,
    java_ack: Series,
}

impl Failovers {
    /// Adds one and prints it.
    pub fn add(&mut self, number: usize, victim: usize, failover: Failover) {
        self.registered.add(failover.registered);
        self.first_ack.add(failover.first_ack);
        self.all_acked.add(failover.all_acked);
        let java = failover.java_ack.map(|time| {
            self.java_ack.add(time);
            format!(", java producer {}", ms(time))
        });
        say(format!(
            "round {number}: n{victim} led; new leader {}, first acknowledged send {}, every producer {}{}",
            ms(failover.registered),
            ms(failover.first_ack),
            ms(failover.all_acked),
            java.unwrap_or_default()
        ));
    }

    /// The time in which half of the groups had a new leader.
    pub fn registered(&self) -> &Series {
        &self.registered
    }

    /// The times to the first acknowledged send.
    pub fn first_ack(&self) -> &Series {
        &self.first_ack
    }
}

impl fmt::Display for Failovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "new leader registered     {}", self.registered)?;
        writeln!(f, "first acknowledged send   {}", self.first_ack)?;
        write!(f, "every producer again      {}", self.all_acked)?;
        if self.java_ack.percentile(50).is_some() {
            write!(f, "\njava producer again       {}", self.java_ack)?;
        }
        Ok(())
    }
}

/// The longest sends of several rounds, of each kind of producer and of all.
#[derive(Debug, Clone, Default)]
pub struct Stalls {
    all: Series,
    kinds: BTreeMap<&'static str, Series>,
}

impl Stalls {
    /// Whether there was no round.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a round, given by the kinds of producers, and prints it.
    pub fn add(&mut self, round: impl fmt::Display, stall: &BTreeMap<&'static str, Duration>) {
        let worst = stall.values().max().copied().unwrap_or_default();
        self.all.add(worst);
        let mut words = Vec::new();
        for (kind, time) in stall {
            self.kinds.entry(kind).or_default().add(*time);
            words.push(format!("{kind} {}", ms(*time)));
        }
        say(format!(
            "{round}: slowest send {} ({})",
            ms(worst),
            words.join(", ")
        ));
    }
}

impl fmt::Display for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slowest send, all          {}", self.all)?;
        for (kind, series) in &self.kinds {
            write!(f, "\nslowest send, {kind:<12} {series}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut series = Series::default();
        assert_eq!(series.percentile(50), None);
        for time in (1..=10).rev() {
            series.add(Duration::from_millis(time));
        }
        let rank = |percent| series.percentile(percent).unwrap().as_millis();
        assert_eq!(
            [rank(0), rank(50), rank(90), rank(99), rank(100)],
            [1, 5, 9, 10, 10]
        );
    }
}

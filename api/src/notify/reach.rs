//! Whether a receiver can be reached, and when it is tried again.

use std::time::{Duration, Instant};

use klaxon_schemas::time::Timestamp;

use super::{Backoff, ReceiverState};

/// After so many failures in a row nothing but one delivery at a time is tried, until one succeeds.
const FAILURES_MAX: u32 = 3;

/// A number that nobody foresees, to spread receivers that failed together.
pub(super) fn chance() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// How it stands.
#[derive(Debug)]
pub(super) struct Reach {
    backoff: Backoff,
    failures: u32,
    rounds: u32,
    not_before: Option<Instant>,
    /// Since when nothing got through.
    failing_since: Option<Instant>,
    pub(super) state: ReceiverState,
    pub(super) since: Timestamp,
    pub(super) last_error: Option<(String, Timestamp)>,
    pub(super) last_reached: Option<Timestamp>,
}

impl Reach {
    /// Nothing was sent yet.
    pub(super) fn new(backoff: Backoff, at: Timestamp) -> Self {
        Self {
            backoff,
            failures: 0,
            rounds: 0,
            not_before: None,
            failing_since: None,
            state: ReceiverState::Starting,
            since: at,
            last_error: None,
            last_reached: None,
        }
    }

    fn is(&mut self, state: ReceiverState, at: Timestamp) {
        if self.state != state {
            (self.state, self.since) = (state, at);
        }
    }

    /// It confirmed something. Whether it was away before.
    pub(super) fn reached(&mut self, at: Timestamp) -> bool {
        let was_away = self.is_away();
        (self.failures, self.rounds, self.not_before, self.failing_since) = (0, 0, None, None);
        self.last_reached = Some(at);
        self.is(ReceiverState::Ok, at);
        was_away
    }

    /// A delivery failed.
    pub(super) fn failed(&mut self, error: String, now: Instant, at: Timestamp, chance: u64) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.last_error = Some((error, at));
        if self.state != ReceiverState::Unreachable {
            self.is(ReceiverState::Retrying, at);
        }
        if self.is_away() && self.not_before.is_none_or(|from| from <= now) {
            self.rounds = self.rounds.saturating_add(1);
            self.not_before = Some(now + self.backoff.after(self.rounds, chance));
        }
    }

    /// An error that is not about reaching it.
    pub(super) fn note(&mut self, error: String, at: Timestamp) {
        self.last_error = Some((error, at));
    }

    /// Nothing gets through: one delivery at a time.
    pub(super) fn is_away(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Something failed and nothing got through since.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// When it may be tried.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// When it is an alarm, if nothing gets through until then.
    pub(super) fn alarm_at(&self, after: Duration) -> Option<Instant> {
        (self.state != ReceiverState::Unreachable).then_some(self.failing_since? + after)
    }

    /// It is an alarm.
    pub(super) fn unreachable(&mut self, at: Timestamp) {
        self.is(ReceiverState::Unreachable, at);
    }
}

/// A bucket of tokens that holds one second's worth.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Rate {
    /// Full.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second, filled_at: now }
    }

    /// How many may be sent now.
    pub(super) fn allows(&mut self, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second);
        // Truncation is what is meant: whole notifications.
        self.tokens as usize
    }

    /// So many are sent.
    pub(super) fn take(&mut self, count: usize) {
        self.tokens -= count as f64;
    }

    /// When the next one may be sent.
    pub(super) fn next(&self) -> Instant {
        let missing = (1.0 - self.tokens).max(0.0);
        self.filled_at + Duration::from_secs_f64(missing / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_a_burst_is_a_second() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        assert_eq!(rate.allows(start), 10);
        rate.take(10);
        assert_eq!(rate.allows(start + Duration::from_millis(50)), 0);
        assert_eq!(rate.next(), start + Duration::from_millis(100));
        assert_eq!(rate.allows(start + Duration::from_millis(350)), 3);
        assert_eq!(rate.allows(start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn a_receiver_that_is_away_is_tried_less_and_less_and_is_there_again_at_once() {
        let (start, at) = (Instant::now(), Timestamp::default());
        let mut reach = Reach::new(Backoff::default(), at);
        reach.failed("no".to_owned(), start, at, 0);
        assert_eq!((reach.state, reach.is_away(), reach.not_before()), (ReceiverState::Retrying, false, None));
        reach.failed("no".to_owned(), start, at, 0);
        reach.failed("no".to_owned(), start, at, 0);
        let first = reach.not_before().expect("waits");
        reach.failed("no".to_owned(), start, at, 0);
        assert_eq!(reach.not_before(), Some(first), "what was under way together is one failure");
        reach.failed("no".to_owned(), first, at, 0);
        assert!(reach.not_before().is_some_and(|next| next - first > first - start));
        assert_eq!(reach.alarm_at(Duration::from_secs(5)), Some(start + Duration::from_secs(5)));
        reach.unreachable(at);
        assert_eq!(reach.alarm_at(Duration::from_secs(5)), None);
        assert!(reach.reached(at) && !reach.reached(at));
        assert_eq!((reach.state, reach.is_failing(), reach.not_before()), (ReceiverState::Ok, false, None));
    }
}

//! How fast the uplink may send: a bucket of tokens, one for each byte, that fills with time.
//!
//! What is live may always be begun and may run into debt by one message; history waits until there is enough, in this bucket
//! and in a smaller one of its own, so that it never takes all of the line.

use std::time::Duration;

use tokio::time::Instant;

/// What part of the bandwidth history may have, in percent.
const HISTORY_PERCENT: u64 = 80;
/// For how long the bucket fills while nothing is sent.
const BURST: Duration = Duration::from_secs(2);
/// The most bytes of JSON in one message of history, or of what is live.
pub(super) const BATCH_JSON_BYTES_MAX: usize = 256 * 1024;
/// The least: below it, compression has too little to work with.
const BATCH_JSON_BYTES_MIN: usize = 16 * 1024;
/// About how much smaller than its JSON a message is.
const COMPRESSION: u64 = 10;

#[derive(Debug)]
struct Bucket {
    /// Bytes a second.
    rate: u64,
    /// What may be sent now; in debt if negative.
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Self {
        Self { rate, tokens: rate as f64 * BURST.as_secs_f64(), at: now }
    }

    fn fill(&mut self, now: Instant) {
        let most = self.rate as f64 * BURST.as_secs_f64();
        let more = now.saturating_duration_since(self.at).as_secs_f64() * self.rate as f64;
        self.tokens = (self.tokens + more).min(most);
        self.at = now;
    }

    /// When there are `bytes`, or as many as there can be.
    fn ready(&mut self, bytes: f64, now: Instant) -> Instant {
        self.fill(now);
        let missing = bytes.min(self.rate as f64 * BURST.as_secs_f64()) - self.tokens;
        if missing <= 0.0 { now } else { now + Duration::from_secs_f64(missing / self.rate as f64) }
    }
}

/// What may be sent.
#[derive(Debug, Default)]
pub(super) struct Budget(Option<(Bucket, Bucket)>);

impl Budget {
    /// At most `bandwidth` bytes a second, or no limit.
    pub(super) fn new(bandwidth: Option<u64>, now: Instant) -> Self {
        let history = |rate: u64| (rate * HISTORY_PERCENT / 100).max(1);
        Self(bandwidth.map(|rate| (Bucket::new(rate, now), Bucket::new(history(rate), now))))
    }

    /// At most `bandwidth` bytes a second from now on. Where that is no news, what was saved up or taken in advance stays: a
    /// connection that is made anew brings no bytes with it.
    pub(super) fn replan(&mut self, bandwidth: Option<u64>, now: Instant) {
        if self.0.as_ref().map(|(all, _)| all.rate) != bandwidth {
            *self = Self::new(bandwidth, now);
        }
    }

    /// When something live may be sent.
    pub(super) fn live_at(&mut self, now: Instant) -> Instant {
        self.0.as_mut().map_or(now, |(all, _)| all.ready(1.0, now))
    }

    /// When `bytes` of history may be sent.
    pub(super) fn history_at(&mut self, bytes: usize, now: Instant) -> Instant {
        let bytes = bytes as f64;
        self.0.as_mut().map_or(now, |(all, history)| all.ready(bytes, now).max(history.ready(bytes, now)))
    }

    /// So many bytes of what is live, or of what keeps the connection, are sent.
    pub(super) fn take(&mut self, bytes: usize) {
        if let Some((all, _)) = &mut self.0 {
            all.tokens -= bytes as f64;
        }
    }

    /// So many bytes of history are sent.
    pub(super) fn take_history(&mut self, bytes: usize) {
        if let Some((all, history)) = &mut self.0 {
            all.tokens -= bytes as f64;
            history.tokens -= bytes as f64;
        }
    }

    /// How much JSON goes into one message, so that it holds up what comes behind it for two seconds at most.
    pub(super) fn batch_json_bytes(&self) -> usize {
        self.0.as_ref().map_or(BATCH_JSON_BYTES_MAX, |(all, _)| {
            let bytes = all.rate.saturating_mul(2 * COMPRESSION);
            usize::try_from(bytes).unwrap_or(usize::MAX).clamp(BATCH_JSON_BYTES_MIN, BATCH_JSON_BYTES_MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_leaves_room_and_the_limit_holds() {
        let begun = Instant::now();
        let mut budget = Budget::new(Some(1000), begun);
        let (mut now, mut sent) = (begun, 0);
        while now < begun + Duration::from_secs(100) {
            now = budget.history_at(500, now);
            budget.take_history(500);
            sent += 500;
        }
        assert!((79_000..=82_500).contains(&sent), "{sent} bytes of history in 100 s");
        assert_eq!(budget.live_at(now), now, "what is live need not wait");
        budget.take(5_000);
        assert!(budget.live_at(now) > now + Duration::from_secs(2), "it pays for what it took");
        assert_eq!(Budget::new(None, begun).history_at(1 << 30, now), now);
        // A new connection has no bytes of its own; another rate has.
        budget.replan(Some(1000), now);
        assert!(budget.live_at(now) > now + Duration::from_secs(2));
        budget.replan(Some(2000), now);
        assert_eq!(budget.live_at(now), now);
    }
}

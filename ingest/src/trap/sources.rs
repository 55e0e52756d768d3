//! How much each source may send: a bucket of tokens for each address, so that one device that has gone mad does not drown the
//! others. What is over is dropped before it is read, counted, and told of in `flood.rs`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// How many sources are remembered. Whoever was not heard of for the longest time is forgotten, and may send a burst again.
const SOURCES_MAX: usize = 65_536;
/// Of how many sources it is known how much was dropped; of others together.
const NAMED_MAX: usize = 256;

/// How much one source may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimit {
    /// So many datagrams a second for as long as it likes; without limit if 0.
    pub rate_max: u32,
    /// So many at once, after it was quiet for long enough.
    pub burst_max: u32,
}

impl Default for SourceLimit {
    fn default() -> Self {
        Self { rate_max: 1_000, burst_max: 20_000 }
    }
}

/// What a source may send at a moment.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// What sources have sent lately.
#[derive(Debug)]
pub(super) struct Sources {
    limit: SourceLimit,
    /// Those that were heard of lately, and those before. When the first are many, they become the second, which are forgotten.
    lately: HashMap<IpAddr, Bucket>,
    before: HashMap<IpAddr, Bucket>,
    sources_max: usize,
    dropped: Arc<Dropped>,
}

/// What was dropped since it was last asked for.
#[derive(Debug, Default)]
pub(super) struct Dropped(Mutex<Drops>);

/// What was dropped, by source.
#[derive(Debug, Default)]
pub(super) struct Drops {
    pub(super) by_source: HashMap<IpAddr, u64>,
    /// Of more sources than are told apart.
    pub(super) others: u64,
}

impl Sources {
    pub(super) fn new(limit: SourceLimit, dropped: Arc<Dropped>) -> Self {
        let (lately, before) = Default::default();
        Self { limit, lately, before, sources_max: SOURCES_MAX, dropped }
    }

    /// From now on. What sources have left of their bursts stays.
    pub(super) fn set(&mut self, limit: SourceLimit) {
        self.limit = limit;
    }

    /// Whether what `source` sent at a moment is taken.
    pub(super) fn admits(&mut self, source: IpAddr, now: Instant) -> bool {
        let SourceLimit { rate_max, burst_max } = self.limit;
        if rate_max == 0 {
            return true;
        }
        let source = source.to_canonical();
        let (rate, burst) = (f64::from(rate_max), f64::from(burst_max.max(1)));
        let bucket = match self.lately.get_mut(&source) {
            Some(bucket) => bucket,
            None => {
                if self.lately.len() >= self.sources_max / 2 {
                    self.before = std::mem::take(&mut self.lately);
                }
                let known = self.before.remove(&source).unwrap_or(Bucket { tokens: burst, at: now });
                self.lately.entry(source).or_insert(known)
            }
        };
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * rate).min(burst);
        bucket.at = bucket.at.max(now);
        let is_admitted = bucket.tokens >= 1.0;
        if is_admitted {
            bucket.tokens -= 1.0;
        } else {
            self.dropped.note(source);
        }
        is_admitted
    }
}

impl Dropped {
    fn note(&self, source: IpAddr) {
        let mut drops = self.0.lock().expect("nobody panics with it");
        if drops.by_source.len() < NAMED_MAX || drops.by_source.contains_key(&source) {
            *drops.by_source.entry(source).or_default() += 1;
        } else {
            drops.others += 1;
        }
    }

    /// What was dropped since this was last called.
    pub(super) fn take(&self) -> Drops {
        std::mem::take(&mut *self.0.lock().expect("nobody panics with it"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sources(rate_max: u32, burst_max: u32) -> (Sources, Arc<Dropped>) {
        let dropped = Arc::<Dropped>::default();
        (Sources::new(SourceLimit { rate_max, burst_max }, Arc::clone(&dropped)), dropped)
    }

    fn source(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + number).into())
    }

    #[test]
    fn a_source_may_send_a_burst_and_then_so_much_a_second_and_others_do_not_notice() {
        let (mut sources, dropped) = sources(10, 50);
        let begun = Instant::now();
        let mut taken = |number, count, after| {
            let now = begun + Duration::from_millis(after);
            (0..count).filter(|_| sources.admits(source(number), now)).count()
        };
        assert_eq!(taken(1, 100, 0), 50);
        assert_eq!(taken(2, 10, 0), 10);
        assert_eq!(taken(1, 100, 1_000), 10);
        assert_eq!(taken(1, 100, 1_050), 0);
        assert_eq!(taken(1, 100, 1_100), 1);
        assert_eq!(taken(1, 100, 60_000), 50, "no more than a burst is saved");
        assert_eq!(taken(1, 100, 59_000), 0, "a moment that came before another costs as much");
        let drops = dropped.take();
        assert_eq!(drops.by_source, HashMap::from([(source(1), 50 + 90 + 100 + 99 + 50 + 100)]));
        assert!(dropped.take().by_source.is_empty());
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4_and_zero_is_no_limit() {
        let (mut limited, _) = sources(1, 1);
        let now = Instant::now();
        assert!(limited.admits(source(1), now));
        assert!(!limited.admits("::ffff:10.0.0.1".parse().expect("an address"), now));
        limited.set(SourceLimit { rate_max: 0, burst_max: 1 });
        assert!((0..1000).all(|_| limited.admits(source(1), now)));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_quiet_ones_first() {
        let (mut sources, dropped) = sources(1, 1);
        sources.sources_max = 100;
        let now = Instant::now();
        for number in 1..10_000 {
            sources.admits(source(number), now);
            assert!(number == 1 || !sources.admits(source(1), now), "the noisy one is not forgotten");
            assert!(sources.lately.len() + sources.before.len() <= 101);
        }
        assert!(sources.admits(source(3), now), "is forgotten");
        assert!(dropped.take().others == 0);
        for number in 1..10_000 {
            sources.admits(source(number), now);
            sources.admits(source(number), now);
        }
        let drops = dropped.take();
        assert_eq!(drops.by_source.len(), NAMED_MAX);
        assert!(drops.others > 9_000);
    }
}

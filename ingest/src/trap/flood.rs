//! The alarm `klaxon.trap-flood`: a source sends more than it may, and a person should know which. One alarm, however many do.
//!
//! ```text
//! more dropped ─▶ raised, with the sources of the last minute ─▶ another is the worst: told anew ─▶ a minute without: cleared
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::event::Report;
use klaxon_schemas::severity::Severity;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::sources::{Dropped, Drops};
use crate::own::OwnAlarm;

/// How often it is looked at what was dropped.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After this time without a drop it is over.
const QUIET: Duration = Duration::from_secs(60);
/// How often the alarm may name another source.
const RENAME_EVERY: Duration = Duration::from_secs(60);
/// How many sources are named.
const NAMED: usize = 3;

/// Looks at what was dropped, and tells.
pub(super) struct Flood {
    pub(super) dropped: Arc<Dropped>,
    pub(super) alarm: OwnAlarm,
}

impl Flood {
    /// Looks until `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut watch = Watch::new(Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                now = looks.tick() => self.look(&mut watch, now).await,
            }
        }
    }

    async fn look(&self, watch: &mut Watch, now: Instant) {
        watch.note(self.dropped.take(), now);
        if !watch.is_concerned(now) {
            return;
        }
        match watch.telling(self.alarm.standing().is_some(), now) {
            None => {}
            Some(Telling::Raise) => {
                let text = watch.text();
                tracing::warn!(sources = %watch.named(), "sources send more traps than they may, and what is over is dropped");
                if self.alarm.tell(Report::Raise(Severity::Minor), &text).await {
                    watch.told(now);
                }
            }
            Some(Telling::Clear) => {
                // If it cannot be told now, it still stands at the next look.
                let is_told = self.alarm.tell(Report::Clear, "No source sends more traps than it may.").await;
                watch.cleared(is_told);
            }
        }
    }
}

/// What was dropped since it began, and what of it was told.
#[derive(Debug)]
struct Watch {
    by_source: HashMap<IpAddr, u64>,
    others: u64,
    /// Since when nothing was dropped.
    quiet_since: Instant,
    /// Something was dropped that nobody has been told of.
    is_untold: bool,
    /// The source that was named first, and when.
    told: Option<(IpAddr, Instant)>,
    is_over: bool,
}

/// What is to be told.
#[derive(Debug, PartialEq, Eq)]
enum Telling {
    Raise,
    Clear,
}

impl Watch {
    /// At the start, when perhaps an alarm of the run before stands.
    fn new(now: Instant) -> Self {
        Self { by_source: HashMap::new(), others: 0, quiet_since: now, is_untold: false, told: None, is_over: false }
    }

    fn note(&mut self, drops: Drops, now: Instant) {
        if drops.by_source.is_empty() {
            return;
        }
        if now.duration_since(self.quiet_since) >= QUIET {
            // What was before is another flood.
            (self.by_source, self.others) = Default::default();
        }
        (self.quiet_since, self.is_untold, self.is_over) = (now, true, false);
        self.others += drops.others;
        for (source, count) in drops.by_source {
            *self.by_source.entry(source).or_default() += count;
        }
        if self.by_source.len() > 4 * NAMED {
            // Only the worst will be named; what a small one did before counts among the others.
            let kept: HashMap<_, _> = self.worst().into_iter().take(2 * NAMED).collect();
            self.others +=
                self.by_source.iter().filter(|(source, _)| !kept.contains_key(source)).map(|(_, count)| count).sum::<u64>();
            self.by_source = kept;
        }
    }

    /// Whether it matters now what stands raised.
    fn is_concerned(&self, now: Instant) -> bool {
        self.is_untold || (!self.is_over && now.duration_since(self.quiet_since) >= QUIET)
    }

    fn telling(&mut self, stands: bool, now: Instant) -> Option<Telling> {
        if !self.is_untold {
            self.is_over = !stands;
            return stands.then_some(Telling::Clear);
        }
        let worst = self.worst().first().map(|(source, _)| *source);
        let is_named = self.told.is_some_and(|(named, at)| worst == Some(named) || now.duration_since(at) < RENAME_EVERY);
        if stands && is_named {
            self.is_untold = false;
            return None;
        }
        Some(Telling::Raise)
    }

    fn told(&mut self, now: Instant) {
        self.is_untold = false;
        self.told = self.worst().first().map(|(source, _)| (*source, now));
    }

    fn cleared(&mut self, is_told: bool) {
        if is_told {
            self.is_over = true;
            self.told = None;
        }
    }

    /// The sources, the worst first.
    fn worst(&self) -> Vec<(IpAddr, u64)> {
        let mut all: Vec<_> = self.by_source.iter().map(|(source, count)| (*source, *count)).collect();
        all.sort_by_key(|(source, count)| (std::cmp::Reverse(*count), *source));
        all
    }

    fn named(&self) -> String {
        let worst = self.worst();
        let named = worst.iter().take(NAMED).map(|(source, count)| format!("{source} ({count} dropped so far)"));
        let mut text = named.collect::<Vec<_>>().join(", ");
        let more = self.others + worst.iter().skip(NAMED).map(|(_, count)| count).sum::<u64>();
        if more > 0 {
            text.push_str(&format!(", and others ({more})"));
        }
        text
    }

    fn text(&self) -> String {
        format!(
            "More SNMP traps than a source may send, and what is over is dropped: {}. Find out what is wrong with it; if it may send \
             so much, raise traps.source_rate_max.",
            self.named()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(sources: &[(u8, u64)]) -> Drops {
        let by_source = sources.iter().map(|(last, count)| (IpAddr::from([192, 0, 2, *last]), *count)).collect();
        Drops { by_source, others: 0 }
    }

    /// A watch, and whether its alarm stands.
    struct Bench {
        watch: Watch,
        begun: Instant,
        stands: bool,
    }

    impl Bench {
        fn new() -> Self {
            let begun = Instant::now();
            Self { watch: Watch::new(begun), begun, stands: false }
        }

        fn look(&mut self, after_s: u64, sources: &[(u8, u64)]) -> Option<Telling> {
            let now = self.begun + Duration::from_secs(after_s);
            self.watch.note(drops(sources), now);
            if !self.watch.is_concerned(now) {
                return None;
            }
            let telling = self.watch.telling(self.stands, now);
            match telling {
                Some(Telling::Raise) => {
                    self.watch.told(now);
                    self.stands = true;
                }
                Some(Telling::Clear) => {
                    self.watch.cleared(true);
                    self.stands = false;
                }
                None => {}
            }
            telling
        }
    }

    #[test]
    fn one_alarm_names_the_worst_and_is_over_when_it_is_quiet() {
        let mut bench = Bench::new();
        assert_eq!(bench.look(1, &[]), None);
        assert_eq!(bench.look(2, &[(7, 100)]), Some(Telling::Raise));
        assert!(bench.watch.text().contains("192.0.2.7 (100 dropped so far)"), "{}", bench.watch.text());
        assert_eq!(bench.look(3, &[(7, 100)]), None);
        assert_eq!(bench.look(4, &[(8, 1000)]), None, "not every moment another");
        assert_eq!(bench.look(62, &[(8, 1000)]), Some(Telling::Raise));
        assert!(bench.watch.text().contains("192.0.2.8 (2000 dropped so far), 192.0.2.7 (200"), "{}", bench.watch.text());
        assert_eq!(bench.look(100, &[(8, 1)]), None);
        assert_eq!(bench.look(159, &[]), None);
        assert_eq!(bench.look(160, &[]), Some(Telling::Clear));
        assert_eq!(bench.look(161, &[]), None);
        assert_eq!(bench.look(200, &[(9, 1)]), Some(Telling::Raise));
        assert!(!bench.watch.text().contains("192.0.2.8"), "that was another flood");
    }

    #[test]
    fn what_an_operator_clears_comes_back_with_the_next_drop_and_not_before() {
        let mut bench = Bench::new();
        bench.look(1, &[(7, 1)]);
        bench.stands = false;
        assert_eq!(bench.look(2, &[]), None);
        assert_eq!(bench.look(3, &[(7, 1)]), Some(Telling::Raise));
    }

    #[test]
    fn what_stands_from_the_run_before_is_over_after_a_while() {
        let mut bench = Bench::new();
        bench.stands = true;
        assert_eq!(bench.look(1, &[]), None);
        assert_eq!(bench.look(60, &[]), Some(Telling::Clear));
    }

    #[test]
    fn many_sources_are_few_names() {
        let mut bench = Bench::new();
        let many: Vec<(u8, u64)> = (0..200).map(|last| (last, u64::from(last) + 1)).collect();
        assert_eq!(bench.look(1, &many), Some(Telling::Raise));
        assert!(bench.watch.by_source.len() <= 4 * NAMED);
        let text = bench.watch.text();
        assert!(text.contains("192.0.2.199 (200 dropped") && text.contains("and others (19503)"), "{text}");
    }
}

//! The alarm `klaxon.trap-loss`: the kernel dropped datagrams, and a person should know that traps are missing.
//!
//! ```text
//! more dropped ─▶ untold ─▶ raised, when the journal takes it ─▶ five minutes without a drop ─▶ cleared
//!                   └─ as bad as it stands raised already: nothing to tell
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klaxon_schemas::event::Report;
use klaxon_schemas::severity::Severity;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::TrapCounts;
use super::socket::TrapSocket;
use crate::own::OwnAlarm;

/// How often the kernel's count is read.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What was dropped in this time counts as dropped now.
const RECENT: Duration = Duration::from_secs(60);
/// After this time without a drop it is over.
const QUIET: Duration = Duration::from_secs(300);
/// From so many in [`RECENT`] on it is minor, below a warning.
const MINOR_FROM: u64 = 100;

/// Looks at the kernel's count, and tells.
pub(super) struct Loss {
    pub(super) socket: Arc<TrapSocket>,
    pub(super) counts: Arc<TrapCounts>,
    pub(super) alarm: OwnAlarm,
    pub(super) listen: SocketAddr,
}

impl Loss {
    /// Looks until `stop`. What `standing` says afterwards is for a last look.
    pub(super) async fn run(&self, standing: &mut Standing, stop: &CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                now = looks.tick() => self.look(standing, now).await,
            }
        }
    }

    /// Reads the count, and tells what there is to tell.
    pub(super) async fn look(&self, standing: &mut Standing, now: Instant) {
        let dropped = match self.socket.dropped() {
            Ok(dropped) => dropped,
            Err(error) => return tracing::debug!(%error, "the kernel's count of dropped traps cannot be read"),
        };
        self.counts.kernel_drops.store(dropped, Ordering::Relaxed);
        standing.note(dropped, now);
        if !standing.is_concerned(now) {
            return;
        }
        match standing.next_telling(self.alarm.standing(), now) {
            None => {}
            Some(Telling::Raise(Untold { severity, recent })) => {
                let bytes = self.counts.receive_buffer_bytes.load(Ordering::Relaxed);
                tracing::warn!(recent, dropped, receive_buffer_bytes = bytes, "the kernel dropped traps for want of buffer");
                let text = format!(
                    "{recent} datagrams to {} were dropped by the kernel within a minute, {dropped} since the start: the receive \
                     buffer of {bytes} bytes was full. Which traps they were nobody knows. Ask for a larger one \
                     (traps.receive_buffer) and allow it: sysctl -w net.core.rmem_max=BYTES.",
                    self.listen
                );
                if self.alarm.tell(Report::Raise(severity), &text).await {
                    standing.raised(now);
                }
            }
            Some(Telling::Clear) => {
                // If it cannot be told now, it still stands at the next look.
                self.alarm.tell(Report::Clear, "No trap was dropped for five minutes.").await;
            }
        }
    }
}

/// What was dropped when, and what of it nobody has been told.
#[derive(Debug)]
pub(super) struct Standing {
    seen: u64,
    drops: VecDeque<(Instant, u64)>,
    untold: Option<Untold>,
    /// Since when nothing was dropped; not before what was dropped was told.
    quiet_since: Instant,
    is_over: bool,
}

/// The worst of what is not told yet. It stays until it is told, however long the journal takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Untold {
    severity: Severity,
    /// How many were dropped within [`RECENT`].
    recent: u64,
}

/// What is to be told.
#[derive(Debug, PartialEq, Eq)]
enum Telling {
    Raise(Untold),
    Clear,
}

impl Standing {
    /// At the start, when perhaps an alarm of the run before stands.
    pub(super) fn new(now: Instant) -> Self {
        Self { seen: 0, drops: VecDeque::new(), untold: None, quiet_since: now, is_over: false }
    }

    /// Takes up the kernel's count.
    fn note(&mut self, dropped: u64, now: Instant) {
        let more = dropped.saturating_sub(self.seen);
        self.seen = dropped;
        while self.drops.front().is_some_and(|(at, _)| now.duration_since(*at) >= RECENT) {
            self.drops.pop_front();
        }
        if more == 0 {
            return;
        }
        self.drops.push_back((now, more));
        self.quiet_since = now;
        self.is_over = false;
        let recent = self.drops.iter().map(|(_, count)| count).sum::<u64>();
        let severity = if recent < MINOR_FROM { Severity::Warning } else { Severity::Minor };
        if self.untold.is_none_or(|untold| untold.recent < recent) {
            self.untold = Some(Untold { severity, recent });
        }
    }

    /// Whether it matters now what stands raised.
    fn is_concerned(&self, now: Instant) -> bool {
        self.untold.is_some() || (!self.is_over && self.is_quiet(now))
    }

    fn is_quiet(&self, now: Instant) -> bool {
        now.duration_since(self.quiet_since) >= QUIET
    }

    /// What is to be told, when it stands raised as `standing`: that it is this bad, or that it is over.
    fn next_telling(&mut self, standing: Option<Severity>, now: Instant) -> Option<Telling> {
        // It gets worse, and is over; in between it does not flap.
        self.untold = self.untold.filter(|untold| standing.is_none_or(|standing| standing < untold.severity));
        if let Some(untold) = self.untold {
            return Some(Telling::Raise(untold));
        }
        self.is_over = standing.is_none() && self.is_quiet(now);
        (standing.is_some() && self.is_quiet(now)).then_some(Telling::Clear)
    }

    /// What was untold is told.
    fn raised(&mut self, now: Instant) {
        self.untold = None;
        // However late it is told, it stands for a while.
        self.quiet_since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A count that is looked at, beside a store that takes what is told unless it is full.
    struct Bench {
        begun: Instant,
        standing: Standing,
        stored: Option<Severity>,
        is_full: bool,
    }

    impl Bench {
        fn new() -> Self {
            let begun = Instant::now();
            Self { begun, standing: Standing::new(begun), stored: None, is_full: false }
        }

        /// What is told when the count is `dropped` after `seconds`.
        fn look(&mut self, dropped: u64, seconds: u64) -> Option<Telling> {
            let now = self.begun + Duration::from_secs(seconds);
            self.standing.note(dropped, now);
            let telling = self.standing.is_concerned(now).then(|| self.standing.next_telling(self.stored, now)).flatten();
            match &telling {
                _ if self.is_full => {}
                Some(Telling::Raise(untold)) => {
                    self.stored = Some(untold.severity);
                    self.standing.raised(now);
                }
                Some(Telling::Clear) => self.stored = None,
                None => {}
            }
            telling
        }
    }

    fn raise(severity: Severity, recent: u64) -> Option<Telling> {
        Some(Telling::Raise(Untold { severity, recent }))
    }

    #[test]
    fn loss_is_told_when_it_begins_when_it_gets_worse_and_when_it_is_over() {
        let mut bench = Bench::new();
        assert_eq!(bench.look(0, 0), None);
        assert_eq!(bench.look(3, 2), raise(Severity::Warning, 3));
        assert_eq!(bench.look(3, 4), None);
        assert_eq!(bench.look(90, 6), None);
        assert_eq!(bench.look(120, 30), raise(Severity::Minor, 120));
        assert_eq!(bench.look(121, 100), None, "it does not become better by one minute");
        assert_eq!(bench.look(121, 399), None);
        assert_eq!(bench.look(121, 400), Some(Telling::Clear));
        assert_eq!(bench.look(121, 402), None);
        assert!(!bench.standing.is_concerned(bench.begun + Duration::from_secs(404)), "nobody asks the store any more");
        assert_eq!(bench.look(122, 502), raise(Severity::Warning, 1));
    }

    #[test]
    fn what_cannot_be_told_now_is_told_later_and_stands_for_a_while() {
        let mut bench = Bench::new();
        bench.is_full = true;
        assert_eq!(bench.look(150, 2), raise(Severity::Minor, 150));
        assert_eq!(bench.look(151, 100), raise(Severity::Minor, 150), "the worst of it");
        assert_eq!(bench.look(151, 2000), raise(Severity::Minor, 150));
        bench.is_full = false;
        assert_eq!(bench.look(151, 2002), raise(Severity::Minor, 150));
        assert_eq!(bench.look(151, 2301), None);
        bench.is_full = true;
        assert_eq!(bench.look(151, 2302), Some(Telling::Clear));
        bench.is_full = false;
        assert_eq!(bench.look(151, 2304), Some(Telling::Clear));
    }

    #[test]
    fn what_an_operator_clears_comes_back_with_the_next_drop_and_not_before() {
        let mut bench = Bench::new();
        assert_eq!(bench.look(3, 2), raise(Severity::Warning, 3));
        bench.stored = None;
        assert_eq!(bench.look(3, 4), None);
        assert_eq!(bench.look(4, 6), raise(Severity::Warning, 4));
    }

    #[test]
    fn what_stands_from_the_run_before_is_over_after_a_while() {
        let mut bench = Bench::new();
        bench.stored = Some(Severity::Minor);
        assert_eq!(bench.look(1, 2), None, "it stands, and worse");
        assert_eq!(bench.look(1, 301), None);
        assert_eq!(bench.look(1, 302), Some(Telling::Clear));
    }
}

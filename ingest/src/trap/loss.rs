//! The alarm `klaxon.trap-loss`: the kernel dropped datagrams, and a person should know that traps are missing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klaxon_schemas::event::{AlarmKey, Details, Event, Origin, Report};
use klaxon_schemas::names::{AlarmType, Producer, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::Item;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::TrapCounts;
use super::socket::TrapSocket;

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
    socket: Arc<TrapSocket>,
    counts: Arc<TrapCounts>,
    door: Door,
    key: AlarmKey,
    listen: SocketAddr,
}

impl Loss {
    pub(super) fn new(socket: Arc<TrapSocket>, counts: Arc<TrapCounts>, door: Door, site: Site, listen: SocketAddr) -> Self {
        let key = AlarmKey {
            site,
            resource: Resource::new("klaxon=node").expect("is a resource"),
            alarm_type: AlarmType::new("klaxon.trap-loss").expect("is a type"),
            qualifier: Qualifier::new("").expect("may be empty"),
        };
        Self { socket, counts, door, key, listen }
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        let told = {
            let read = self.door.store().read();
            let mut ours = read.alarms().filter(|alarm| alarm.is_active() && alarm.key == self.key);
            ours.next().map(|alarm| alarm.severity)
        };
        let mut standing = Standing { told, last_drop: Instant::now(), ..Standing::default() };
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                now = looks.tick() => match self.socket.dropped() {
                    Ok(dropped) => self.look(&mut standing, dropped, now).await,
                    Err(error) => tracing::debug!(%error, "the kernel's count of dropped traps cannot be read"),
                },
            }
        }
    }

    async fn look(&self, standing: &mut Standing, dropped: u64, now: Instant) {
        self.counts.kernel_drops.store(dropped, Ordering::Relaxed);
        let Some(told) = standing.look(dropped, now) else { return };
        let (report, text) = match told {
            Some(severity) => {
                let bytes = self.counts.receive_buffer_bytes.load(Ordering::Relaxed);
                let recent = standing.recent();
                tracing::warn!(recent, dropped, receive_buffer_bytes = bytes, "the kernel dropped traps for want of buffer");
                let text = format!(
                    "{recent} datagrams to {} were dropped by the kernel within a minute, {dropped} since the start: the receive \
                     buffer of {bytes} bytes was full. Which traps they were nobody knows. Ask for a larger one \
                     (traps.receive_buffer) and allow it: sysctl -w net.core.rmem_max=BYTES.",
                    self.listen
                );
                (Report::Raise(severity), text)
            }
            None => (Report::Clear, "No trap was dropped for five minutes.".to_owned()),
        };
        let event = Event {
            key: self.key.clone(),
            report,
            text: Text::lossy(&text).expect("may be empty"),
            details: Details::default(),
            event_time: None,
            origin: Origin { producer: Some(Producer::new("klaxon").expect("is a name")), sequence: None, event_id: None },
            lease: None,
            ends_at: None,
            order_by_event_time: false,
        };
        match self.door.publish(vec![Item::Event(Arc::new(event))], Tally::default()).await {
            Ok(_) => standing.told = told,
            // It is told at the next look.
            Err(error) => tracing::debug!(%error, "the loss of traps cannot be told now"),
        }
    }
}

/// What was dropped when, and what was told of it.
#[derive(Debug)]
struct Standing {
    seen: u64,
    drops: VecDeque<(Instant, u64)>,
    last_drop: Instant,
    told: Option<Severity>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { seen: 0, drops: VecDeque::new(), last_drop: Instant::now(), told: None }
    }
}

impl Standing {
    /// What is to be told now, if anything: that it is this bad, or that it is over.
    fn look(&mut self, dropped: u64, now: Instant) -> Option<Option<Severity>> {
        let more = dropped.saturating_sub(self.seen);
        self.seen = dropped;
        while self.drops.front().is_some_and(|(at, _)| now.duration_since(*at) >= RECENT) {
            self.drops.pop_front();
        }
        if more > 0 {
            self.drops.push_back((now, more));
            self.last_drop = now;
        }
        match (self.recent(), self.told) {
            (0, Some(_)) if now.duration_since(self.last_drop) >= QUIET => Some(None),
            (0, _) => None,
            (recent, told) => {
                let severity = if recent < MINOR_FROM { Severity::Warning } else { Severity::Minor };
                // It gets worse, and is over; in between it does not flap.
                told.is_none_or(|told| told < severity).then_some(Some(severity))
            }
        }
    }

    fn recent(&self) -> u64 {
        self.drops.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_told_when_it_begins_when_it_gets_worse_and_when_it_is_over() {
        let begun = Instant::now();
        let mut standing = Standing::default();
        let mut look = |dropped, seconds| {
            let told = standing.look(dropped, begun + Duration::from_secs(seconds));
            if let Some(told) = told {
                standing.told = told;
            }
            told
        };
        assert_eq!(look(0, 0), None);
        assert_eq!(look(3, 2), Some(Some(Severity::Warning)));
        assert_eq!(look(3, 4), None);
        assert_eq!(look(90, 6), None);
        assert_eq!(look(120, 30), Some(Some(Severity::Minor)));
        assert_eq!(look(121, 100), None, "it does not become better by one minute");
        assert_eq!(look(121, 399), None);
        assert_eq!(look(121, 400), Some(None));
        assert_eq!(look(121, 500), None);
        assert_eq!(look(122, 502), Some(Some(Severity::Warning)));
    }
}

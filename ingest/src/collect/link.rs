//! Whether the network's links work, by what the kernel tells when one changes (rtnetlink), of this network namespace.
//!
//! What is an alarm:
//!
//! * a port, or a vlan, that is administratively up and does not work: `link.down`, major. A vlan below which a watched port is
//!   down is that port's matter.
//! * a bond or team that does not work: `link.down`, critical; one of which a member does not: `link.degraded`, major.
//! * a link that is watched by its whole name and is not there: `link.down`, critical.
//! * a link that goes down again and again: `link.flapping`, minor.
//!
//! What is administratively down is no alarm, for somebody wanted it so; nor is a port that never had a carrier, for nothing is
//! plugged in — unless it was asked for by name or is a member of a bond.
//!
//! A break that is over before it is looked at raises no `link.down`; it is in the kernel's count of lost carriers, from which
//! flapping is judged. The kernel itself tells of a port that changes more than once a second only once a second.

mod follow;
mod judge;
mod table;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::pattern::Pattern;
use super::{Collector, Host, Look, LookError, Told};
use follow::Follower;
use judge::{Judge, Surroundings};

/// The most downs that are counted before a link counts as flapping.
pub const FLAPS_MAX: u32 = 1000;
/// A follower that dies before this time is not replaced at once.
const LIFE_MIN: Duration = Duration::from_secs(10);

/// What the collector `link` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkConfig {
    /// How often all links are asked for, to hold what the kernel told against what is; changes are seen at once.
    pub interval: Duration,
    /// Which links are watched beyond hardware, bonds, teams and vlans. One whose whole name is here must be there, and is
    /// watched whatever `exclude` says.
    pub include: Vec<Pattern>,
    /// Which links are not watched.
    pub exclude: Vec<Pattern>,
    /// How long a link must be down for an alarm.
    pub raise_after: Duration,
    /// How long a link must be up, without a break, for the alarm to be over.
    pub clear_after: Duration,
    /// A link that goes down more often than this within `flap_window` flaps; at most [`FLAPS_MAX`]. It does so until it has
    /// gone down no more than half as often.
    pub flaps: u32,
    /// Within which time.
    pub flap_window: Duration,
    /// How much of what the kernel tells may wait to be read. If it is more, all links are asked for anew.
    pub receive_bytes: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            include: Vec::new(),
            exclude: Vec::new(),
            raise_after: Duration::ZERO,
            clear_after: Duration::from_secs(5),
            flaps: 6,
            flap_window: Duration::from_secs(300),
            receive_bytes: 4 * 1024 * 1024,
        }
    }
}

pub(super) struct Links {
    config: LinkConfig,
    host: Host,
    wakes: Arc<Notify>,
    follower: Option<Follower>,
    /// When the follower began, and when it was last asked for all links.
    began: Duration,
    audited: Duration,
    /// Since when links that must be there are not.
    missing: HashMap<String, Duration>,
}

impl Links {
    pub(super) fn new(config: &LinkConfig, host: &Host) -> Self {
        let config = LinkConfig { flaps: config.flaps.min(FLAPS_MAX), ..config.clone() };
        Self {
            config,
            host: host.clone(),
            wakes: Arc::new(Notify::new()),
            follower: None,
            began: Duration::ZERO,
            audited: Duration::ZERO,
            missing: HashMap::new(),
        }
    }

    fn begin(&mut self, now: Duration) -> std::io::Result<Follower> {
        let downs_kept = usize::try_from(self.config.flaps).unwrap_or(usize::MAX).saturating_add(1);
        (self.began, self.audited) = (now, now);
        Follower::begin(Arc::clone(&self.wakes), self.config.receive_bytes, downs_kept)
    }
}

impl Collector for Links {
    fn look(&mut self, now: Duration, told: &Told) -> Result<Look, LookError> {
        let mut follower = match self.follower.take() {
            Some(follower) => follower,
            None => self.begin(now).map_err(|error| LookError::new("follow the links", error))?,
        };
        // It is put back only if it works: the next look begins anew.
        if let Err(error) = follower.known().map(drop) {
            if now.saturating_sub(self.began) < LIFE_MIN {
                return Err(LookError::new("follow the links", error));
            }
            tracing::warn!(%error, "what the kernel tells of links could not be followed and is begun anew");
            drop(follower);
            follower = self.begin(now).map_err(|error| LookError::new("follow the links", error))?;
        }
        if now.saturating_sub(self.audited) >= self.config.interval {
            self.audited = now;
            follower.audit();
        }
        let known = follower.known().map_err(|error| LookError::new("follow the links", error))?;
        if known.table.is_over_full() {
            return Err(LookError::new("follow the links", "there are more of them than are followed"));
        }
        let surroundings = Surroundings { config: &self.config, host: &self.host, now, told };
        let look = Judge::new(surroundings, &mut self.missing).judge(&known);
        drop(known);
        self.follower = Some(follower);
        Ok(look)
    }

    fn wakes(&self) -> Option<Arc<Notify>> {
        Some(Arc::clone(&self.wakes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn links() -> Links {
        Links::new(&LinkConfig::default(), &Host::new("h").expect("is one"))
    }

    fn dumps(links: &Links) -> u64 {
        links.follower.as_ref().expect("follows").known().expect("is alive").counts.dumps
    }

    #[test]
    fn following_that_ended_is_begun_anew_at_once_and_if_it_ended_soon_at_the_next_look() {
        let (mut links, told) = (links(), Told::default());
        links.look(at(100), &told).expect("looks");
        links.follower.as_mut().expect("follows").kill();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("built");
        runtime.block_on(links.wakes().expect("wakes").notified());
        let error = links.look(at(101), &told).expect_err("it ended within a second");
        assert_eq!(error.to_string(), "cannot follow the links");
        links.look(at(102), &told).expect("looks again");
        links.follower.as_mut().expect("follows").kill();
        links.look(at(112), &told).expect("it had lived long enough");
    }

    #[test]
    fn all_links_are_asked_for_again_when_the_interval_is_over() {
        let (mut links, told) = (links(), Told::default());
        links.look(at(100), &told).expect("looks");
        links.look(at(159), &told).expect("looks");
        assert_eq!(dumps(&links), 1);
        links.look(at(160), &told).expect("looks");
        let begun = std::time::Instant::now();
        while dumps(&links) == 1 {
            assert!(begun.elapsed() < at(30), "they are asked for");
            std::thread::yield_now();
        }
    }
}

//! The tables that SNMP shows: KLAXON-ALARM-MIB, and the alarm MIBs of RFC 3877 and of StarlingX beside it.
//!
//! ```text
//! store ─▶ track ─▶ snapshot ─▶ klaxon, rfc3877, wrs ─▶ the agent
//!          follows   never       objects over it,        asks, and
//!                    written     without a lock          knows no alarm
//! ```
//!
//! Rows are found by numbers that stay the same for as long as an alarm is kept (see [`Indexes`]), so a walk during changes
//! neither loops nor repeats, and skips nothing that stands throughout.

pub(crate) mod causes;
mod cells;
mod indexes;
mod klaxon;
mod mib;
pub mod oids;
mod receivers;
pub(crate) mod rfc3877;
mod set;
mod sites;
pub(crate) mod snapshot;
mod sorted;
pub(crate) mod starlingx;
#[cfg(test)]
mod tests;
mod track;
mod tree;
pub mod values;
mod wrs;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::Site;
use klaxon_snmp::{Engine, EngineHome, Objects};
use klaxon_store::Store;
use klaxon_store::door::Door;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use cells::{NAME, Shown, WORDS, empty, event_cell};
pub use indexes::{INDEXES_FILE, Indexes, IndexesError};
pub use mib::mib;
pub use receivers::{ReceiversShown, Resend};
pub use sites::SitesShown;
pub use starlingx::{Wrs, WrsProfile};
pub use wrs::WRS_ALARM_MIB;

use oids::Root;
use snapshot::Snapshot;
use track::{Follows, Tracker};

/// The most rows of the history that may be asked for.
pub const HISTORY_ROWS_MAX: usize = 100_000;
/// The tables are published at most so often.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);
/// The changes are gathered at most so often, which is often enough to find them still in memory.
const GATHER_EVERY: Duration = Duration::from_millis(25);

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablesConfig {
    /// Where KLAXON-ALARM-MIB hangs.
    pub root: Root,
    /// How many changes, and ends of alarms, the tables of what was have at most.
    pub history_rows: usize,
    /// Whether the MIBs of RFC 3877 are there.
    pub rfc3877: bool,
    /// Whether that of StarlingX is, and whose word counts.
    pub wrs: Option<Wrs>,
}

impl Default for TablesConfig {
    fn default() -> Self {
        Self { root: Root::default(), history_rows: 2_000, rfc3877: true, wrs: None }
    }
}

/// What the tables are made of.
pub struct Parts {
    /// By which operator actions come in; what is shown is read from its store.
    pub door: Door,
    /// The node's own site.
    pub site: Site,
    /// The row numbers of alarms.
    pub indexes: Arc<Indexes>,
    /// Who the node is in SNMP.
    pub engine: Arc<EngineHome>,
    /// Where the agent is reached, if it is one address.
    pub address: Option<IpAddr>,
    /// Who is told of alarms.
    pub receivers: Option<ReceiversShown>,
    /// The nodes below.
    pub sites: Option<SitesShown>,
    /// Has a receiver sent everything again.
    pub resend: Option<Resend>,
}

/// What every part of the tables has.
struct Shared {
    config: TablesConfig,
    site: Site,
    node_id: String,
    home: Arc<EngineHome>,
    /// The engine, as soon as somebody was answered by it.
    engine: OnceLock<Engine>,
    address: Arc<ArcSwapOption<IpAddr>>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    committed: watch::Receiver<Position>,
    /// Up to where the published tables go.
    moved: watch::Sender<Position>,
    door: Door,
    resend: Option<Resend>,
    resent: set::Resent,
}

impl Shared {
    /// The tables as they are now.
    fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshots.load()
    }

    /// snmpEngineID. Whoever asks is answered by an engine that has started.
    fn engine_id(&self) -> &[u8] {
        if let (None, Some(engine)) = (self.engine.get(), self.home.started()) {
            // Somebody else may have been first, with the same one.
            let _ = self.engine.set(engine);
        }
        self.engine.get().map_or(&[], Engine::id)
    }
}

/// The tables.
pub struct Tables {
    shared: Arc<Shared>,
    tracker: Tracker,
    wanted: watch::Receiver<bool>,
    kept: watch::Sender<bool>,
}

/// Turns the tables on and off.
#[derive(Debug)]
pub struct TablesControl {
    wanted: watch::Sender<bool>,
    kept: watch::Receiver<bool>,
    address: Arc<ArcSwapOption<IpAddr>>,
}

impl TablesControl {
    /// Where the agent is reached from here on, if it is one address.
    pub fn reached_at(&self, address: Option<IpAddr>) {
        self.address.store(address.map(Arc::new));
    }

    /// Has the tables kept up to date, or empty, and returns when they are so.
    pub async fn turn(&self, on: bool) {
        self.wanted.send_replace(on);
        let mut kept = self.kept.clone();
        // They are gone when the node stops.
        let _ = kept.wait_for(|kept| *kept == on).await;
    }
}

/// The row numbers of the alarms that `store` keeps; `dir` is the node's data directory. They are the tables' and those of
/// whoever names rows in notifications.
pub fn indexes(store: &Store, dir: &Path) -> Arc<Indexes> {
    let mut alarms: Vec<_> = store.read().alarms().map(|alarm| (alarm.first_raised_at, alarm.id)).collect();
    alarms.sort_unstable();
    let (indexes, error) = Indexes::load(dir, alarms.into_iter().map(|(_, id): (_, AlarmId)| id));
    if let Some(error) = error {
        tracing::warn!(error = &error as &dyn std::error::Error, "the numbers of rows are made anew");
    }
    Arc::new(indexes)
}

impl Tables {
    /// The tables as they are now; empty ones if nobody `is_on` to ask. Reads the state and the last of the journal.
    pub fn new(config: TablesConfig, parts: Parts, is_on: bool) -> (Self, TablesControl) {
        let store = parts.door.store().clone();
        let follows = Follows {
            store: store.clone(),
            config: config.clone(),
            own_site: parts.site.clone(),
            indexes: parts.indexes,
            receivers: parts.receivers,
            sites: parts.sites,
            engine: Arc::clone(&parts.engine),
        };
        let mut tracker = Tracker::new(follows);
        if is_on {
            tracker.begin();
        }
        let (wanted, asked) = watch::channel(is_on);
        let (kept, is_kept) = watch::channel(is_on);
        let address = Arc::new(ArcSwapOption::from(parts.address.map(Arc::new)));
        let control = TablesControl { wanted, kept: is_kept, address: Arc::clone(&address) };
        let snapshots = tracker.published();
        let shared = Arc::new(Shared {
            config,
            site: parts.site,
            node_id: store.node().node_id.to_string(),
            home: parts.engine,
            engine: OnceLock::new(),
            address,
            committed: store.committed(),
            moved: watch::Sender::new(snapshots.load().position),
            snapshots,
            door: parts.door,
            resend: parts.resend,
            resent: set::Resent::default(),
        });
        (Self { shared, tracker, wanted: asked, kept }, control)
    }

    /// What an agent is to show.
    pub fn objects(&self) -> Vec<Arc<dyn Objects>> {
        let config = &self.shared.config;
        let shared = || Arc::clone(&self.shared);
        let mut objects: Vec<Arc<dyn Objects>> = vec![Arc::new(klaxon::KlaxonMib::new(shared()))];
        if config.rfc3877 {
            objects.push(Arc::new(rfc3877::AlarmMib::new(shared())));
            objects.push(Arc::new(rfc3877::ItuAlarmMib::new(shared())));
        }
        if let Some(wrs) = &config.wrs {
            objects.push(Arc::new(wrs::WrsMib::new(shared(), wrs.clone())));
        }
        objects
    }

    /// Keeps the tables up to date until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Self { shared, mut tracker, mut wanted, kept } = self;
        let mut committed = shared.committed.clone();
        let mut published_at = Instant::now();
        let mut looked_at = published_at;
        while !stop.is_cancelled() {
            let is_on = *wanted.borrow_and_update();
            if is_on != *kept.borrow() {
                let turned = tokio::task::spawn_blocking(move || {
                    if is_on {
                        tracker.begin();
                    } else {
                        tracker.end();
                    }
                    tracker
                });
                let Ok(back) = turned.await else { return };
                tracker = back;
                kept.send_replace(is_on);
            }
            if !is_on {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = wanted.changed() => if changed.is_err() { stop.cancelled().await },
                }
                continue;
            }
            let wake = async {
                tokio::select! {
                    moved = committed.changed() => if moved.is_err() { stop.cancelled().await },
                    () = tokio::time::sleep_until(published_at + PUBLISH_EVERY), if tracker.is_stirred() => {}
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = wake => {}
                changed = wanted.changed() => if changed.is_err() { stop.cancelled().await } else { continue },
                () = tokio::time::sleep_until(looked_at + track::STANDING_AGE_MAX) => {}
            }
            // What comes at once is taken together.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(GATHER_EVERY) => {}
            }
            let is_due = published_at.elapsed() >= PUBLISH_EVERY;
            let is_standing = looked_at.elapsed() >= track::STANDING_AGE_MAX;
            let round = tokio::task::spawn_blocking(move || {
                tracker.gather();
                if is_standing {
                    tracker.look_at_receivers();
                    tracker.look_at_sites();
                }
                let publishes = is_due && tracker.is_stirred();
                if publishes {
                    tracker.take_and_publish();
                }
                (tracker, publishes)
            });
            // It ends early only with the runtime.
            let Ok((back, publishes)) = round.await else { return };
            tracker = back;
            let now = Instant::now();
            if publishes {
                published_at = now;
                shared.moved.send_replace(shared.snapshot().position);
            }
            if is_standing {
                looked_at = now;
            }
        }
    }
}

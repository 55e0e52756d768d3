//! Uplinks that end here: the nodes below connect, prove who they are, and send what became of their alarms or events.
//!
//! ```text
//! request (entrance) ─▶ who is it (token, certificate) ─▶ WebSocket ─▶ session: Hello, Welcome, then
//!      up    message ─▶ steps: checked, cut to size ─▶ a lane to the journal ─▶ durable: Reached
//!      down  pending actions, credentials
//! watch, once a second: who is silent, whose credential is old, who was retired, whom an action waits for
//! ```
//!
//! What is worth keeping goes to the journal as [`ChildFact`]s; what is true only as long as a connection lives stands in the
//! live table (`table.rs`), which the API, metrics and SNMP read.

mod bulk;
mod clock;
pub mod codec;
mod entrance;
mod metrics;
mod read;
mod session;
mod shown;
mod steps;
mod table;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use klaxon_schemas::child::{Child, ChildFact, Connection};
use klaxon_schemas::names::{ChildName, Site, Text};
use klaxon_schemas::time::Timestamp;
use klaxon_store::Store;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{Answer, Item, PublishError, Published};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use crate::clock::now;
pub use crate::token::{NewToken, new_token};
pub use entrance::Denied;
pub use metrics::UplinkMetric;
pub use shown::{SeverityAlarms, SiteShown, SiteState};

use bulk::Bulk;
pub(crate) use entrance::Caller;
use metrics::Counts;
use table::Table;

/// The most uplinks that may be allowed at one time.
pub const CONNECTIONS_LIMIT: usize = 100_000;
/// How many requests with a wrong token are kept waiting for their answer at one time; more are told to come again.
const DENIALS_AT_ONCE: usize = 64;

/// Manners towards the nodes below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SitesConfig {
    /// How often a node that has nothing to say is to be heard from.
    pub heartbeat: Duration,
    /// After how long without a word a node is silent.
    pub silent_after: Duration,
    /// Whether a person must approve a node before what it sends counts, if nothing else is said when it is enrolled.
    pub approve: bool,
    /// How long a join token is good.
    pub join_token_lifetime: Duration,
    /// How old a credential becomes before it is replaced.
    pub credential_lifetime: Duration,
    /// The most uplinks at one time.
    pub connections_max: usize,
}

impl Default for SitesConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(30),
            silent_after: Duration::from_secs(180),
            approve: false,
            join_token_lifetime: Duration::from_secs(7 * 24 * 3600),
            credential_lifetime: Duration::from_secs(30 * 24 * 3600),
            connections_max: 2048,
        }
    }
}

/// The door of the nodes below. Cloning shares it.
#[derive(Clone)]
pub struct Uplinks(Arc<Inner>);

struct Inner {
    config: ArcSwap<SitesConfig>,
    door: Door,
    site: Site,
    name: Option<Text>,
    table: Table,
    counts: Counts,
    denials: Semaphore,
    bulk: Bulk,
    sessions: TaskTracker,
    stop: CancellationToken,
}

impl Uplinks {
    /// A door for the nodes below the node of `site`, until `stop`. It has a `name` if it shares its journal with others.
    pub fn new(config: SitesConfig, door: Door, site: Site, name: Option<Text>, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            config: ArcSwap::from_pointee(config),
            door,
            site,
            name,
            table: Table::default(),
            counts: Counts::default(),
            denials: Semaphore::new(DENIALS_AT_ONCE),
            bulk: Bulk::default(),
            sessions: TaskTracker::new(),
            stop,
        }))
    }

    /// Takes up other manners. Connections go on.
    pub fn apply(&self, config: SitesConfig) {
        self.0.config.store(Arc::new(config));
    }

    /// The manners.
    pub fn config(&self) -> Arc<SitesConfig> {
        self.0.config.load_full()
    }

    /// Under which name, and with which counts, entries come in by it.
    pub fn door(&self) -> &Door {
        &self.0.door
    }

    fn store(&self) -> &Store {
        self.0.door.store()
    }

    fn site(&self) -> &Site {
        &self.0.site
    }

    /// What others who share the journal are to know of a connection to this node.
    fn connection(&self, since: Timestamp) -> Option<Connection> {
        Some(Connection { since, node: self.0.name.clone()? })
    }

    fn table(&self) -> &Table {
        &self.0.table
    }

    fn counts(&self) -> &Counts {
        &self.0.counts
    }

    fn bulk(&self) -> &Bulk {
        &self.0.bulk
    }

    fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// The child of that name, as it is kept.
    pub fn child(&self, name: &ChildName) -> Option<Arc<Child>> {
        read::child(self.store(), name)
    }

    /// How many children are kept.
    pub fn children_len(&self) -> usize {
        read::children(self.store()).len()
    }

    /// Ends the connection of `name`, if there is one: what it was let in by is void.
    pub(crate) fn cut(&self, name: &ChildName) {
        if let Some(live) = self.table().live(name) {
            live.cut();
        }
    }

    /// Brings in what became of children, all of it together, and waits until it is durable.
    pub async fn tell(&self, facts: Vec<ChildFact>) -> Result<Published, PublishError> {
        let items = facts.into_iter().map(|fact| Item::Child(Arc::new(fact))).collect();
        self.0.door.publish(items, Tally::default()).await
    }
}

/// The time that is `span` after `time`.
fn later(time: Timestamp, span: Duration) -> Timestamp {
    time.saturating_add_micros(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}

/// Why the journal did not take one of several items, in words, if it did not.
fn rejection(published: &Published) -> Option<String> {
    published.answers.iter().find_map(|answer| match answer {
        Answer::Rejected(rejection) => Some(rejection.to_string()),
        Answer::Accepted { .. } | Answer::Duplicate => None,
    })
}

//! A child as it is shown: what is kept of it, and what the live table knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use klaxon_schemas::child::{Below, Child, ChildKind, Moved, Reached, Span};
use klaxon_schemas::names::{Actor, ChildName, Text};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::table::{Asked, Live};
use super::{Uplinks, later, now, read};

/// The kinds.
pub(super) const KINDS: [ChildKind; 3] = [ChildKind::Site, ChildKind::Region, ChildKind::Agent];

/// A kind in a word.
pub(super) fn kind_word(kind: ChildKind) -> &'static str {
    match kind {
        ChildKind::Site => "site",
        ChildKind::Region => "region",
        ChildKind::Agent => "agent",
    }
}

/// How a child stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SiteState {
    /// A person must approve it.
    Awaiting,
    /// It has not joined yet.
    Enrolled,
    /// It is connected.
    Connected,
    /// It is not connected, and not silent yet.
    Away,
    /// It is silent.
    Silent,
    /// It has another node above it.
    Moved,
}

impl SiteState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Awaiting, Self::Enrolled, Self::Connected, Self::Away, Self::Silent, Self::Moved];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Awaiting => "awaiting",
            Self::Enrolled => "enrolled",
            Self::Connected => "connected",
            Self::Away => "away",
            Self::Silent => "silent",
            Self::Moved => "moved",
        }
    }
}

/// Alarms that are not cleared, by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct SeverityAlarms {
    /// Critical.
    pub critical: u64,
    /// Major.
    pub major: u64,
    /// Minor.
    pub minor: u64,
    /// Warning.
    pub warning: u64,
    /// Indeterminate.
    pub indeterminate: u64,
}

/// A child.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SiteShown {
    /// Its name.
    pub name: ChildName,
    /// What it is.
    pub kind: ChildKind,
    /// How it stands.
    pub state: SiteState,
    /// Who enrolled it.
    pub enrolled_by: Actor,
    /// When.
    pub enrolled_at: Timestamp,
    /// Until when its join token is good, if it has one that is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_expires_at: Option<Timestamp>,
    /// Its store's id, once it has joined; while it waits for approval, of the node that asked in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Uuid>,
    /// The version of its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// From where it is connected, or asked in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// With what it proved who it is: `token`, `join-token` or `certificate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<&'static str>,
    /// To which node of this site, by its name, where several share the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_to: Option<Text>,
    /// Since when it is connected to this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_since: Option<Timestamp>,
    /// When it was last heard from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heard_at: Option<Timestamp>,
    /// Since when it is silent; its alarms are stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<Timestamp>,
    /// Where it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
    /// How old the newest change was when it was durable here, in milliseconds by its clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// How far its clock is ahead of this node's, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<f64>,
    /// How long a message and its answer take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// Bytes that came over this connection.
    pub received_bytes: u64,
    /// Bytes that went over it.
    pub sent_bytes: u64,
    /// Changes and events that came over it.
    pub received_items: u64,
    /// How far what it sent has come in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
    /// How many records of its journal are yet to come.
    pub missing: u64,
    /// Actions that are on their way to it.
    pub pending: u64,
    /// Its alarms that are not cleared; nothing of an agent, whose alarms are this node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarms: Option<SeverityAlarms>,
    /// The nodes further below, as it says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub below: Vec<Below>,
}

/// What is read of the store once for all rows.
struct Read {
    pending: BTreeMap<ChildName, u64>,
    alarms: BTreeMap<String, SeverityAlarms>,
}

impl Uplinks {
    /// All children, by name.
    pub fn sites(&self) -> Vec<SiteShown> {
        let (read, live) = (self.read(), self.table().all());
        let children = read::children(self.store());
        children.into_iter().map(|(name, child)| self.shown(&read, live.get(&name), name, &child)).collect()
    }

    /// The child `name`.
    pub fn site_shown(&self, name: &ChildName) -> Option<SiteShown> {
        let child = self.child(name).filter(|child| child.retired.is_none())?;
        Some(self.shown(&self.read(), self.table().live(name).as_ref(), name.clone(), &child))
    }

    fn read(&self) -> Read {
        let pending = read::pending(self.store()).into_iter().map(|(name, count)| (name, count as u64));
        let counts = self.store().read().counts();
        let alarms = counts.sites.iter().map(|(site, counts)| {
            let alarms = SeverityAlarms {
                critical: counts.of(Severity::Critical).total,
                major: counts.of(Severity::Major).total,
                minor: counts.of(Severity::Minor).total,
                warning: counts.of(Severity::Warning).total,
                indeterminate: counts.of(Severity::Indeterminate).total,
            };
            (site.as_str().to_owned(), alarms)
        });
        Read { pending: pending.collect(), alarms: alarms.collect() }
    }

    fn shown(&self, read: &Read, live: Option<&Live>, name: ChildName, child: &Arc<Child>) -> SiteShown {
        let asked = self.table().asked(&name);
        let pulse = live.map(|live| &live.pulse);
        let load = |count: fn(&super::table::Pulse) -> &std::sync::atomic::AtomicU64| {
            pulse.map_or(0, |pulse| count(pulse).load(Ordering::Relaxed))
        };
        let heard = self.table().heard(&name).map(|heard| heard.wall);
        let elsewhere = self.connected_elsewhere(child);
        let connected_to = live.and_then(|live| self.connection(live.since)).or(elsewhere.clone()).map(|one| one.node);
        let missing = child.reached.as_ref().map_or(0, |reached| reached.missing.iter().map(records).sum());
        SiteShown {
            kind: child.kind,
            state: state(child, live.is_some() || elsewhere.is_some()),
            enrolled_by: child.enrolled_by.clone(),
            enrolled_at: child.enrolled_at,
            join_expires_at: child.join.as_ref().map(|join| join.expires_at),
            node: child.node.or(asked.as_ref().map(|asked| asked.node)),
            version: child.version.clone().or(asked.as_ref().map(|asked: &Asked| asked.version.clone())),
            address: live.map(|live| live.address.to_string()).or(asked.as_ref().map(|asked| asked.address.to_string())),
            proof: live.map(|live| live.proof),
            connected_to,
            connected_since: live.map(|live| live.since),
            last_heard_at: heard.max(child.last_heard_at).or(asked.map(|asked| asked.at)),
            silent_since: child.silent_since,
            moved: child.moved.clone(),
            lag_ms: pulse.map(|_| load(|pulse| &pulse.lag_us) / 1000),
            clock_offset_ms: pulse.and_then(|pulse| pulse.offset_us()).map(|us| us as f64 / 1000.0),
            round_trip_ms: pulse.and_then(|pulse| pulse.round_trip_us()).map(|us| us as f64 / 1000.0),
            received_bytes: load(|pulse| &pulse.bytes_in),
            sent_bytes: load(|pulse| &pulse.bytes_out),
            received_items: load(|pulse| &pulse.items),
            reached: child.reached.clone(),
            missing,
            pending: read.pending.get(&name).copied().unwrap_or(0),
            alarms: child.kind.owns().then(|| read.alarms.get(name.as_str()).copied().unwrap_or_default()),
            below: child.below.to_vec(),
            name,
        }
    }

    /// When a join token that is made now expires.
    pub(crate) fn join_expires_at(&self) -> Timestamp {
        later(now(), self.config().join_token_lifetime)
    }
}

fn records(span: &Span) -> u64 {
    span.upto.0.saturating_sub(span.after.0)
}

fn state(child: &Child, is_connected: bool) -> SiteState {
    if child.awaits_approval {
        SiteState::Awaiting
    } else if child.moved.is_some() {
        SiteState::Moved
    } else if child.silent_since.is_some() {
        SiteState::Silent
    } else if is_connected {
        SiteState::Connected
    } else if child.node.is_none() {
        SiteState::Enrolled
    } else {
        SiteState::Away
    }
}

//! The nodes below this one: sites whose alarms it mirrors, and agents whose events it takes; and what they send.
//!
//! A **child** is a node whose uplink ends here. A site (or a region, which relays further sites) owns its alarms and sends
//! changes; this node mirrors them. An agent owns none and sends events.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::action::Action;
use crate::alarm::Alarm;
use crate::change::Change;
use crate::event::RelayMark;
use crate::ids::{ActionId, AlarmId, Epoch, Position};
use crate::names::{Actor, ChildName, Site, Text};
use crate::time::{JournalTime, Timestamp};

/// The most stretches of history that may be missing from one child at a time; with as many, what is missing beyond them is
/// counted as lost.
pub const MISSING_SPANS_MAX: usize = 64;
/// The most nodes further below that one child may name; what it says of more is not kept.
pub const BELOW_MAX: usize = 2048;
/// How many regions deep it is looked whether one is silent; nobody builds as many on top of each other.
pub const DEPTH_MAX: usize = 16;
/// The most credentials of one child that hold at a time: the one in use, the one that replaces it, and as many again of which it
/// is not known whether they came to its disk.
pub const CREDENTIALS_MAX: usize = 4;
/// The most alarms that are mirrored in the range of an alignment and not among those it sends: what is lost is told, alarm by
/// alarm. Doors cut an alignment at half as many.
pub const ALIGNMENT_LOST_MAX: usize = 2048;
/// In how many ranges of ids two nodes compare their alarms: by the first byte of the id.
pub const BUCKETS: usize = 256;

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChildKind {
    /// It owns its alarms and sends their changes. It speaks only for itself.
    Site,
    /// A site that also relays what further sites below it send.
    Region,
    /// A host of this node's own site: it sends events, and this node owns their alarms.
    Agent,
}

impl ChildKind {
    /// Whether it owns alarms that are mirrored here.
    pub fn owns(self) -> bool {
        self != Self::Agent
    }
}

/// A child, as the node above it keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Child {
    /// What it is.
    pub kind: ChildKind,
    /// Who enrolled it.
    pub enrolled_by: Actor,
    /// When.
    pub enrolled_at: Timestamp,
    /// With what it may join, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// Whether a person must approve it before what it sends counts, and nobody has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_approval: bool,
    /// With what it proves who it is, the newest last, at most [`CREDENTIALS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Credential>,
    /// Its store's id, once it has joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Uuid>,
    /// The version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it was connected when that was last journalled, if several nodes share the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// How far what it sent has come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
    /// What came as history since it was last connected throughout; told in one line when nothing is missing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meanwhile: Option<Meanwhile>,
    /// When it was last heard from, as far as it is journalled: with what it sends, and when it connects or falls silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard_at: Option<Timestamp>,
    /// Since when it is silent: all its alarms are stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<Timestamp>,
    /// Where it went, if it has another node above it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
    /// Since when it is there no more, while its alarms are forgotten step by step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Timestamp>,
    /// The nodes further below that it relays, as it says, in the order of their names, at most [`BELOW_MAX`]. They are kept in
    /// a record of their own ([`StateKey::Below`](crate::state::StateKey::Below)), because the rest of this changes with every
    /// step of the child.
    #[serde(skip)]
    pub below: Arc<Vec<Below>>,
}

impl Child {
    /// Since when nothing is heard of alarms of `owner` (nobody: of this node's own) that come through it: because it is silent,
    /// or because it says that the owner is.
    pub fn silent_for(&self, owner: Option<&Site>) -> Option<Timestamp> {
        self.silent_since.or_else(|| silent_among(&self.below, owner?)?.silent_since)
    }

    /// Whether it is silent, or one below it is.
    pub fn is_anything_silent(&self) -> bool {
        self.silent_since.is_some() || self.below.iter().any(|below| below.silent_since.is_some())
    }
}

/// A node further below, as the child that relays it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Below {
    /// Its name.
    pub name: ChildName,
    /// What it is.
    pub kind: ChildKind,
    /// The version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Since when it is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<Timestamp>,
    /// The node among these through which it is heard of; nothing if it is below the child itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<ChildName>,
}

impl Below {
    /// A node as the one above `via` says it: through whom it is heard of there, if `via` has not said.
    pub fn through(&self, via: &ChildName) -> Self {
        Self { via: self.via.clone().or_else(|| Some(via.clone())), ..self.clone() }
    }
}

/// Who is silent, so that nothing is heard of the node `name` among those `below` a child, in the order of their names: it, or one
/// through which it is heard of.
pub fn silent_among<'a>(below: &'a [Below], name: &str) -> Option<&'a Below> {
    let mut name = name;
    for _ in 0..DEPTH_MAX {
        let place = below.binary_search_by(|row| row.name.as_str().cmp(name)).ok()?;
        let row = &below[place];
        if row.silent_since.is_some() {
            return Some(row);
        }
        name = row.via.as_deref()?;
    }
    None
}

/// How far what a child sent has come in. Positions are of the child's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reached {
    /// The child's numbering.
    pub epoch: Epoch,
    /// All up to here has come in, but for what is missing. The child may forget it.
    pub position: Position,
    /// What the last change was that came in live, or was there when it was aligned, so that a child that went back in time is
    /// known: [`fingerprint`]; nothing is known if it is 0.
    #[serde(default)]
    pub fingerprint: u64,
    /// Stretches of history that are yet to come, the oldest first, at most [`MISSING_SPANS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Span>,
}

impl Reached {
    /// Behind this the child must keep what it has.
    pub fn needed_after(&self) -> Position {
        self.missing.first().map_or(self.position, |span| span.after)
    }
}

/// Names a change among those with the same number, if there should be such.
pub fn fingerprint(change: &Change) -> u64 {
    use sha2::{Digest, Sha256};
    let subject = match &change.subject {
        crate::change::Subject::Alarm { alarm, .. } => alarm.id.to_string(),
        crate::change::Subject::Event { event, .. } => event.key.resource.as_str().to_owned(),
        _ => String::new(),
    };
    let said =
        format!("{} {} {} {} {:?} {subject}", change.site, change.number.epoch, change.number.seq, change.at, change.kind);
    let hash = Sha256::digest(said.as_bytes());
    u64::from_be_bytes(hash[..8].try_into().expect("eight of 32 bytes"))
}

/// A stretch of a journal: behind one position, up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Span {
    /// Behind this,
    pub after: Position,
    /// up to this.
    pub upto: Position,
}

impl Span {
    /// That it does not end before it begins.
    pub fn check(self) -> Result<(), NotTaken> {
        if self.upto < self.after {
            return Err(NotTaken::Backwards { after: self.after, upto: self.upto });
        }
        Ok(())
    }
}

/// What came as history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
pub struct Meanwhile {
    /// The time of the first change among it.
    pub from: Timestamp,
    /// The time of the last.
    pub until: Timestamp,
    /// How many changes.
    pub changes: u64,
    /// How many episodes began.
    pub raised: u64,
    /// How many ended.
    pub cleared: u64,
    /// How many records of the child's journal are lost: it kept them no longer, or they were not understood or left out here.
    #[serde(default)]
    pub lost: u64,
}

/// With what a child joins: the hash of a token that is good once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Join {
    /// SHA-256 of the token, in hexadecimal digits.
    pub hash: String,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

/// With what a child proves who it is: the hash of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Credential {
    /// SHA-256 of the token, in hexadecimal digits.
    pub hash: String,
    /// Since when it is good.
    pub since: Timestamp,
    /// Until when it is good, once a newer one is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A connection of a child to one of the nodes that share a journal. Of two the older is before the younger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// Since when, by that node's clock.
    pub since: Timestamp,
    /// The node, as it calls itself.
    pub node: Text,
}

/// Where a child went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// The address of the node above it now, as the child says.
    pub to: Text,
    /// When.
    pub at: Timestamp,
    /// A person enrolled it anew since, so that it may come back. Before that it may not: whoever comes with what proved it
    /// then is a copy of it that was left behind. Until it comes, it is elsewhere all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_return: bool,
}

/// What became of a child, as a door learns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChildFact {
    /// Which.
    pub child: ChildName,
    /// Who did it, if a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// What.
    pub what: ChildEvent,
}

impl ChildFact {
    /// Up to where all of an agent's journal has come that is to come, if it says that.
    pub fn passed(&self) -> Option<RelayMark> {
        let ChildEvent::Passed { epoch, position, after, .. } = self.what else { return None };
        Some(RelayMark { child: self.child.clone(), epoch, position, after })
    }
}

/// What can become of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChildEvent {
    /// It may join; or may join anew, with what it has to prove itself taken away.
    Enrolled {
        /// What it is.
        kind: ChildKind,
        /// With what; nothing if only a certificate proves it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        join: Option<Join>,
        /// Whether a person must approve it.
        #[serde(default)]
        needs_approval: bool,
    },
    /// It joined, and this is its first credential; the token is used up.
    Joined {
        /// The credential.
        credential: Credential,
    },
    /// A person approved it.
    Approved,
    /// It has one credential more; those before hold until the time given.
    Rotated {
        /// The new one.
        credential: Credential,
        /// Until when the others hold.
        others_until: Timestamp,
    },
    /// It connected.
    Connected {
        /// Its store's id.
        node: Uuid,
        /// The version of its program.
        version: String,
        /// Where, if several nodes share the journal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<Connection>,
    },
    /// It is silent.
    Silent {
        /// Since when.
        since: Timestamp,
    },
    /// Another node claims to be it while it is connected.
    Doubled {
        /// From where.
        from: Text,
    },
    /// No other node claims to be it any more.
    Single,
    /// It has another node above it now.
    Moved {
        /// The address.
        to: Text,
    },
    /// It is an agent, and nothing of its journal is left to come up to a position: behind its last event stands what does not go
    /// up, or that event cannot be taken.
    Passed {
        /// Its numbering.
        epoch: Epoch,
        /// The position.
        position: Position,
        /// As [`RelayMark::after`](crate::event::RelayMark::after).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Position>,
        /// How many records before it are lost, because the agent kept them no longer.
        #[serde(default, skip_serializing_if = "is_zero")]
        lost: u64,
    },
    /// It is there no more: its alarms are forgotten, its credentials void.
    Retired,
}

pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What became of a child, as changes tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChildNote {
    /// Which.
    pub name: ChildName,
    /// What it is.
    pub kind: ChildKind,
    /// What became of it.
    pub what: ChildStep,
}

/// The steps in a child's life that stand in history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChildStep {
    /// It may join.
    Enrolled,
    /// It joined.
    Joined,
    /// A person approved it.
    Approved,
    /// It fell silent.
    Silent,
    /// It is heard from again.
    Heard,
    /// It has another node above it now.
    Moved,
    /// It is there no more.
    Retired,
    /// Its numbering began anew.
    NewEpoch,
    /// Nothing of its history is missing any more.
    CaughtUp(Meanwhile),
}

/// As words for a person.
impl fmt::Display for ChildStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Enrolled => "enrolled",
            Self::Joined => "joined",
            Self::Approved => "approved",
            Self::Silent => "silent",
            Self::Heard => "heard from again",
            Self::Moved => "has another node above it",
            Self::Retired => "retired",
            Self::NewEpoch => "began a new numbering",
            Self::CaughtUp(meanwhile) => return meanwhile.fmt(f),
        };
        f.write_str(words)
    }
}

impl fmt::Display for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "caught up on {} to {}: {} changes, {} raised, {} cleared",
            self.from, self.until, self.changes, self.raised, self.cleared
        )?;
        if self.lost > 0 { write!(f, "; {} records are lost", self.lost) } else { Ok(()) }
    }
}

/// What a site sends of its alarms: one step, that takes effect as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Who sends it.
    pub child: ChildName,
    /// Its numbering.
    pub epoch: Epoch,
    /// What.
    pub content: RelayContent,
}

/// What a site can send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayContent {
    /// How its alarms with ids from one to another stand: all that are not cleared, and cleared ones that it still holds. What is
    /// mirrored there and not among them is gone.
    Alignment {
        /// As of this position of its journal: the one that [`Self::Aligned`] will name. What has come in may not be beyond it.
        at: Position,
        /// The first id,
        from: AlarmId,
        /// and the last.
        to: AlarmId,
        /// The alarms, by id.
        alarms: Vec<Arc<Alarm>>,
        /// More that it lists, by id, which are of a newer release and are not understood here: how they stand is not known, and
        /// what is mirrored of them is left as it is.
        unread: Vec<AlarmId>,
    },
    /// It stands here as there, as of a position of its journal: what comes behind it is live. What is between what has come
    /// in and there is missing, and comes as history.
    Aligned {
        /// The position.
        at: Position,
        /// History behind this is missing, if it is before `at`.
        after: Position,
        /// [`fingerprint`] of its last change at or before `at`: it takes the place of that of the last live change.
        fingerprint: u64,
        /// The nodes below it.
        below: Vec<Below>,
    },
    /// Changes as they happened.
    Live {
        /// All changes of its journal behind this, which is where what has come in ends,
        after: Position,
        /// up to this. If what has come in goes up to here or further, it has come before.
        upto: Position,
        /// The changes.
        changes: Vec<Arc<Change>>,
        /// How many more there are, which are of a newer release and not understood here, or were left out by the door.
        unread: u64,
    },
    /// Changes of the oldest stretch that is missing.
    History {
        /// All changes of its journal behind this,
        after: Position,
        /// up to this.
        upto: Position,
        /// The changes.
        changes: Vec<Arc<Change>>,
        /// How many more there are, which are of a newer release and not understood here, or were left out by the door.
        unread: u64,
    },
    /// It keeps the beginning of the oldest stretch that is missing no longer.
    Gap {
        /// What stood behind this,
        after: Position,
        /// up to this, will never come.
        upto: Position,
    },
    /// What became of actions is known to it.
    Acted {
        /// Of which.
        actions: Vec<ActionId>,
    },
}

/// Why something that a child sent, or that is said of one, is not taken. Nothing of it has an effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// There is no such child, or it was retired.
    #[error("there is no child {child}")]
    UnknownChild {
        /// The name.
        child: ChildName,
    },
    /// It is of a kind that does not do that.
    #[error("{child} is enrolled as another kind of node")]
    OtherKind {
        /// Which.
        child: ChildName,
    },
    /// A person must approve it first.
    #[error("{child} awaits approval")]
    AwaitsApproval {
        /// Which.
        child: ChildName,
    },
    /// It is in another numbering than the one in which it is known.
    #[error("is in epoch {is}, but {known} is known")]
    OtherEpoch {
        /// The numbering it is in.
        is: Epoch,
        /// The numbering that is known.
        known: Epoch,
    },
    /// It begins elsewhere than where what has come in ends, or where what is missing begins.
    #[error("begins after position {after}, but what has come in goes up to {reached}")]
    OutOfPlace {
        /// Where it begins.
        after: Position,
        /// Where it was to begin.
        reached: Position,
    },
    /// It ends before it begins.
    #[error("ends at position {upto}, before it begins after {after}")]
    Backwards {
        /// Where it begins.
        after: Position,
        /// Where it ends.
        upto: Position,
    },
    /// It is of a site for which the child may not speak.
    #[error("{child} may not speak for site {owner}")]
    Foreign {
        /// Which child.
        child: ChildName,
        /// Whose it is.
        owner: Site,
    },
    /// An alarm has the id of one that is another's.
    #[error("alarm {alarm} is not of {child}")]
    TakenId {
        /// Which child.
        child: ChildName,
        /// The id.
        alarm: AlarmId,
    },
    /// An alarm is outside of the range of ids that it is sent in.
    #[error("alarm {alarm} is outside of the range of ids")]
    OutOfRange {
        /// The id.
        alarm: AlarmId,
    },
    /// More alarms would be lost with it than one step may change.
    #[error("would lose {lost} alarms or more; at most {ALIGNMENT_LOST_MAX} are allowed in one step")]
    TooManyLost {
        /// How many, as far as they were counted.
        lost: usize,
    },
    /// The engine broke on it and put it aside: the child is to come again, so that its alarms are compared.
    #[error("this node broke on what {child} sent, and put it aside; its alarms are to be compared anew")]
    Broke {
        /// Who sent it.
        child: ChildName,
    },
    /// A child cannot have the name of this site.
    #[error("{child} is the name of this site")]
    OwnName {
        /// The name.
        child: ChildName,
    },
    /// As many children are enrolled as may be.
    #[error("child limit reached: {limit} nodes are enrolled")]
    ChildLimit {
        /// How many may be.
        limit: usize,
    },
}

/// An action on its way to the site that owns the alarms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingAction {
    /// The action, with only the alarms of that site.
    pub action: Arc<Action>,
    /// When it was ordered.
    pub ordered_at: Timestamp,
    /// The entry of this node's journal that ordered it: what was ordered first goes down first, whatever the clock says.
    pub ordered_by: Position,
    /// When it is given up here, in journal time.
    pub expires: Option<JournalTime>,
}

/// How many alarms stand in each range of ids, and what they are, in one number each: equal if the alarms are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests(Box<[u64; BUCKETS]>);

impl Default for Digests {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Digests {
    /// Of what `alarms` is; only what is not cleared counts.
    pub fn of<'a>(alarms: impl IntoIterator<Item = &'a Arc<Alarm>>) -> Self {
        let mut digests = Self::default();
        for alarm in alarms {
            digests.add(alarm);
        }
        digests
    }

    /// Adds one alarm: its id, key, the number of its last change, episode, severity, and whether it is acknowledged and shelved.
    pub fn add(&mut self, alarm: &Alarm) {
        use sha2::{Digest, Sha256};
        if !alarm.is_active() {
            return;
        }
        let mut hash = Sha256::new();
        hash.update(alarm.id.0.as_bytes());
        for part in [&*alarm.key.site, alarm.key.resource.as_str(), &*alarm.key.alarm_type, &*alarm.key.qualifier] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(alarm.last_change.epoch.0.to_be_bytes());
        hash.update(alarm.last_change.seq.0.to_be_bytes());
        hash.update(alarm.raise_seq.to_be_bytes());
        hash.update(alarm.severity.as_str().as_bytes());
        hash.update([u8::from(alarm.acknowledged.is_some()), u8::from(alarm.shelved.is_some())]);
        let hash = u64::from_be_bytes(hash.finalize()[..8].try_into().expect("eight of 32 bytes"));
        let bucket = &mut self.0[bucket(alarm.id)];
        *bucket = bucket.wrapping_add(hash | 1);
    }

    /// The ranges in which the two differ.
    pub fn differing(&self, other: &Self) -> Vec<u8> {
        (0..=u8::MAX).filter(|bucket| self.0[usize::from(*bucket)] != other.0[usize::from(*bucket)]).collect()
    }

    /// As hexadecimal digits, 16 for each range.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|word| format!("{word:016x}")).collect()
    }

    /// Reads what [`Self::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != BUCKETS * 16 || !text.is_ascii() {
            return None;
        }
        let mut digests = Self::default();
        for (bucket, word) in digests.0.iter_mut().enumerate() {
            *word = u64::from_str_radix(&text[bucket * 16..][..16], 16).ok()?;
        }
        Some(digests)
    }
}

/// In which range an id is.
pub fn bucket(id: AlarmId) -> usize {
    usize::from(id.0.as_bytes()[0])
}

/// The first and the last id of a range.
pub fn bucket_bounds(bucket: u8) -> (AlarmId, AlarmId) {
    let first = u128::from(bucket) << 120;
    (AlarmId(Uuid::from_u128(first)), AlarmId(Uuid::from_u128(first | (u128::MAX >> 8))))
}

/// The site that a child of a kind that owns alarms is.
pub fn site_of(child: &ChildName) -> Site {
    Site::new(child).expect("both names have the same rule")
}

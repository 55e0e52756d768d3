//! Which rules look at a trap: found by its OID, and then by what they ask of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use globset::GlobMatcher;
use ipnet::IpNet;
use klaxon_snmp::{Notification, Version};

use super::template::{Choice, Scene};

/// Which traps a rule is for.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) oid: Box<[u32]>,
    /// All traps below the OID, and not the one with the OID.
    pub(super) is_subtree: bool,
    /// What the file calls it.
    pub(super) name: Option<Box<str>>,
}

/// What a rule asks of a field.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) field: Choice,
    pub(super) test: Test,
}

#[derive(Debug)]
pub(super) enum Test {
    /// It is one of these.
    OneOf(Vec<String>),
    /// It is none of these, or missing.
    NoneOf(Vec<String>),
    /// It looks like this.
    Like(GlobMatcher),
    /// It is there, or it is not.
    Present(bool),
    /// It is a number between these.
    Within { at_least: Option<i64>, at_most: Option<i64> },
}

/// Why a rule that is for the trap does not take it.
#[derive(Debug)]
pub(super) enum Miss<'r> {
    /// The device is in none of its networks.
    From(&'r [IpNet]),
    /// A condition does not hold.
    When { condition: &'r Condition, found: Option<String> },
    /// What it needs is missing.
    Missing { what: &'static str, field: &'r str },
    /// No row of a table is for the value.
    NoRow { what: &'static str, field: &'r str, found: Option<String> },
    /// What it makes of the trap cannot be.
    Unsound { what: &'static str, reason: String },
}

impl Condition {
    pub(super) fn check<'r>(&'r self, scene: &Scene<'r>) -> Result<(), Miss<'r>> {
        let all = self.field.all(scene);
        let is_one_of = |texts: &[String]| all.iter().any(|value| texts.iter().any(|text| text == value));
        let holds = match &self.test {
            Test::OneOf(texts) => is_one_of(texts),
            Test::NoneOf(texts) => !is_one_of(texts),
            Test::Like(glob) => all.iter().any(|value| glob.is_match(&**value)),
            Test::Present(wanted) => all.is_empty() != *wanted,
            Test::Within { at_least, at_most } => all.iter().filter_map(|value| value.parse::<i128>().ok()).any(|number| {
                at_least.is_none_or(|least| number >= i128::from(least))
                    && at_most.is_none_or(|most| number <= i128::from(most))
            }),
        };
        if holds {
            return Ok(());
        }
        Err(Miss::When { condition: self, found: all.into_iter().next().map(Cow::into_owned) })
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(texts) => write!(f, "must be {}", quoted(texts)),
            Self::NoneOf(texts) => write!(f, "must not be {}", quoted(texts)),
            Self::Like(glob) => write!(f, "must look like {:?}", glob.glob().glob()),
            Self::Present(true) => f.write_str("must be there"),
            Self::Present(false) => f.write_str("must not be there"),
            Self::Within { at_least: Some(least), at_most: Some(most) } => {
                write!(f, "must be a number from {least} to {most}")
            }
            Self::Within { at_least: Some(least), .. } => write!(f, "must be a number from {least} on"),
            Self::Within { at_most: Some(most), .. } => write!(f, "must be a number up to {most}"),
            Self::Within { .. } => f.write_str("must be a number"),
        }
    }
}

fn quoted(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" or ")
}

impl fmt::Display for Miss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = |found: &Option<String>| match found {
            Some(found) => format!("is {found:?}"),
            None => "is not there".to_owned(),
        };
        match self {
            Self::From(networks) => {
                let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                write!(f, "from: the device is not in {}", networks.join(", "))
            }
            Self::When { condition, found: value } => {
                write!(f, "when: {} {}, and {}", condition.field.text, condition.test, found(value))
            }
            Self::Missing { what, field } => write!(f, "{what}: {field} is not there or empty"),
            Self::NoRow { what, field, found: value } => {
                write!(f, "{what}: {field} {}, for which the table has no row and there is no otherwise", found(value))
            }
            Self::Unsound { what, reason } => write!(f, "{what}: {reason}"),
        }
    }
}

/// A rule, and which of its patterns is meant.
pub(super) type Hit = (u32, u16);

/// Rules by OID.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Box<[u32]>, Vec<Hit>>,
    subtrees: HashMap<Box<[u32]>, Vec<Hit>>,
    /// How many arcs there are in OIDs of subtrees, the most first.
    lengths: Vec<usize>,
}

impl Index {
    pub(super) fn add(&mut self, pattern: &Pattern, hit: Hit) {
        if !pattern.is_subtree {
            self.exact.entry(pattern.oid.clone()).or_default().push(hit);
            return;
        }
        self.subtrees.entry(pattern.oid.clone()).or_default().push(hit);
        if let Err(at) = self.lengths.binary_search_by(|length| pattern.oid.len().cmp(length)) {
            self.lengths.insert(at, pattern.oid.len());
        }
    }

    /// The rules for a trap, those for exactly this one first and then by the length of the subtree.
    pub(super) fn hits<'i>(&'i self, oids: &'i TrapOids<'_>) -> impl Iterator<Item = Hit> + 'i {
        let exact = oids.all().filter_map(|oid| self.exact.get(oid)).flatten();
        let lengths = self.lengths.iter().filter(|length| **length < oids.sent.len());
        let subtrees = lengths.filter_map(|length| self.subtrees.get(&oids.sent[..*length])).flatten();
        exact.chain(subtrees).copied()
    }

    /// The rules whose OID is that of the trap but for a zero before its last arc, which is a mistake that is easily made.
    pub(super) fn near(&self, oid: &[u32]) -> impl Iterator<Item = Hit> + use<'_> {
        let other: Option<Vec<u32>> = match oid {
            [before @ .., 0, last] => Some([before, &[*last]].concat()),
            [before @ .., last] => Some([before, &[0, *last]].concat()),
            [] => None,
        };
        let hits = other.and_then(|other| self.exact.get(&*other));
        hits.into_iter().flatten().copied()
    }
}

/// The OIDs by which a trap is looked up.
#[derive(Debug)]
pub(super) struct TrapOids<'a> {
    pub(super) sent: &'a [u32],
    /// Of an enterprise's trap in v1: without the zero that RFC 3584 section 3.1 puts in. MIBs that were not written for v2 have
    /// traps without it, such as bgpTraps and ospfTraps, and an agent that tells v1 of them loses what it was.
    without_zero: Option<Vec<u32>>,
}

impl<'a> TrapOids<'a> {
    pub(super) fn of(notification: &'a Notification) -> Self {
        let sent = notification.trap_oid.arcs();
        let without_zero = match (notification.version, sent) {
            (Version::V1, [before @ .., 0, last]) => Some([before, &[*last]].concat()),
            _ => None,
        };
        Self { sent, without_zero }
    }

    fn all(&self) -> impl Iterator<Item = &[u32]> {
        std::iter::once(self.sent).chain(self.without_zero.as_deref())
    }
}

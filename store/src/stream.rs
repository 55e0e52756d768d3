//! Following the changes: from a ring of the last ones in memory, and behind that from the journal.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use klaxon_schemas::change::Change;
use klaxon_schemas::error::chain;
use klaxon_schemas::ids::Position;
use klaxon_schemas::wire::v1::Touched;

use crate::journal::frame::Kind;
use crate::journal::frame::NEWER;
use crate::journal::{DamageError, Journal, ReadError, record};

/// The most items in one [`Page`].
pub const STREAM_LIMIT_MAX: usize = 10_000;
/// The most items in the ring.
const RING_ITEMS_MAX: usize = 8192;
/// The most bytes that the items in the ring have in the journal.
const RING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most records that are looked at in the journal for one page.
const RECORDS_MAX: usize = 50_000;

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A step in an alarm's life.
    Change(Arc<Change>),
    /// An alarm was reported again and did not change; without what the engine keeps.
    Touched(Touched),
}

/// What stands behind a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub items: Vec<(Position, Item)>,
    /// Up to where this goes: ask behind it next. There may be more while it is before the committed position.
    pub reached: Position,
}

/// The last items.
#[derive(Debug)]
pub(crate) struct Ring {
    items: VecDeque<(Position, Item, usize)>,
    bytes: usize,
    /// Behind this nothing is missing from it.
    after: Position,
    /// Up to where it goes.
    until: Position,
}

impl Ring {
    /// An empty one, at the end of a journal.
    pub(crate) fn new(committed: Position) -> Self {
        Self { items: VecDeque::new(), bytes: 0, after: committed, until: committed }
    }

    /// Takes in what was committed up to `until`: place, item, and how many bytes it has in the journal.
    pub(crate) fn extend(&mut self, items: impl Iterator<Item = (Position, Item, usize)>, until: Position) {
        for item in items {
            self.bytes += item.2;
            self.items.push_back(item);
        }
        self.until = until;
        while self.items.len() > RING_ITEMS_MAX || self.bytes > RING_BYTES_MAX {
            let Some((position, _, bytes)) = self.items.pop_front() else { break };
            self.bytes -= bytes;
            self.after = position;
        }
    }

    /// What stands behind `after`, if all of it is here.
    fn page(&self, after: Position, limit: usize) -> Option<Page> {
        if after < self.after || after > self.until {
            return None;
        }
        let from = self.items.partition_point(|(position, ..)| *position <= after);
        let items: Vec<_> = self.items.range(from..).take(limit).map(|(position, item, _)| (*position, item.clone())).collect();
        let whole = from + items.len() == self.items.len();
        let reached = if whole { self.until } else { items.last().map_or(after, |(position, _)| *position) };
        Some(Page { items, reached })
    }
}

/// What stands behind `after`, if all of it is in memory.
pub(crate) fn recent(ring: &std::sync::RwLock<Ring>, after: Position, limit: usize) -> Option<Page> {
    ring.read().expect("nobody panics while holding it").page(after, limit.clamp(1, STREAM_LIMIT_MAX))
}

/// What stands behind `after`.
pub(crate) fn page(
    ring: &std::sync::RwLock<Ring>,
    journal: &Journal,
    after: Position,
    limit: usize,
) -> Result<Page, ReadError> {
    let limit = limit.clamp(1, STREAM_LIMIT_MAX);
    if let Some(page) = recent(ring, after, limit) {
        return Ok(page);
    }
    let committed = journal.last();
    if after > committed {
        return Err(ReadError::Beyond { committed });
    }
    let mut items = Vec::new();
    let mut looked_at = 0;
    let mut failure = None;
    let reached = journal.walk(after, |record| {
        looked_at += 1;
        let item = match record.kind {
            Kind::Change => record::change(record.payload).map(|change| Some(Item::Change(Arc::new(change)))),
            Kind::Touched => record::touched(record.payload).map(|touched| Some(Item::Touched(touched))),
            _ => Ok(None),
        };
        match item {
            Ok(item) => items.extend(item.map(|item| (record.position, item))),
            Err(error) => {
                failure = Some((record.position, chain(&error)));
                return ControlFlow::Break(());
            }
        }
        if items.len() >= limit || looked_at >= RECORDS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match failure {
        Some((position, reason)) => Err(unreadable(journal, position, &reason).into()),
        None => Ok(Page { items, reached }),
    }
}

/// A record whose checksum is right and whose form is not.
pub(crate) fn unreadable(journal: &Journal, position: Position, reason: &str) -> DamageError {
    let segment = journal.segments().into_iter().rev().find(|segment| segment.header.first <= position);
    let path = segment.map_or_else(|| journal.dir.clone(), |segment| segment.path.clone());
    DamageError { segment: path, offset: 0, reason: format!("record {position} {reason}; {NEWER}"), newer: true }
}

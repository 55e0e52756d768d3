//! Following the changes.
use std::sync::Arc;
use klaxon_schemas::change::Change;
use klaxon_schemas::ids::Position;
use klaxon_schemas::wire::v1::Touched;

/// The most items in one [`Page`].
pub const STREAM_LIMIT_MAX: usize = 10_000;

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

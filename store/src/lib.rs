//! The journal, the present state, and the view.
//!
//! The **journal** is the truth: segment files of frames, each synced before anybody is told. The **state** is what follows from
//! it: the alarms and the engine's keyed records, in memory, with indexes for filters and sorts. The **view** is a copy of the
//! state in a key-value engine, seconds behind, so that a start need not read the whole journal. `FORMAT.md` draws the files.
//!
//! * [`Store::open`] gives a [`Store`], which everybody may clone and read, and the one [`Writer`].
//! * [`publish`] is the queue between the doors and the loop that owns the [`Writer`].
//! * `kafka` (a feature) has what a journal has in topics of an Apache Kafka, for what outgrows one machine.
//! * [`offline`] and [`backup`] work on the files, without a running node or beside one.
//!
//! This crate must not know how alarms come about: it never decides what a change is, it keeps the changes it is given.

pub mod backup;
mod config;
pub mod door;
mod files;
mod frame;
mod history;
mod journal;
#[cfg(feature = "kafka")]
pub mod kafka;
mod keeper;
mod lock;
mod node;
pub mod offline;
mod open;
pub mod publish;
mod state;
mod store;
mod stream;
mod view;
mod writer;

pub use config::{Retention, StoreConfig, ViewConfig, ViewEngine};
pub use frame::{Frame, Results};
pub use history::{HISTORY_LIMIT_MAX, HistoryPage, HistoryQuery, Order};
pub use journal::{DamageError, FRAME_BYTES_MAX, ReadError};
pub use node::{EARLIER_MAX, NodeError, NodeIdentity, Numbering};
pub use open::{OpenError, OpenReport, TailMissing, TornTail};
pub use state::{
    ALARMS_LIMIT_MAX, AlarmCursor, AlarmCursorError, AlarmPage, AlarmQuery, AlarmSort, Cleared, Counts, SeverityCounts,
    Silences, SiteCounts, State,
};
pub use store::{Info, Original, StateRead, Store};
pub use stream::{Item, Page, STREAM_LIMIT_MAX};
pub use writer::{AppendError, CloseError, Durable, Recovered, Room, Writer};

#[cfg(test)]
mod tests;

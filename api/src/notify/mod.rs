//! Telling the world: receivers of notifications.
//!
//! A receiver is a durable cursor on the changes with a filter, folding, a rate limit, and a [`Sink`] that delivers. What a number
//! (`delivery_seq`) stands for is in the journal before it is sent, and that it was confirmed is there before anything is
//! forgotten; so a number never means two things, and nothing confirmed is sent again. A receiver that is away holds up no
//! other: its backlog stays in the journal, and only a small batch is assigned ahead.
//!
//! ```text
//! store: changes ─▶ plan (pure: filter × told × change) ─▶ assigned ─▶ durable ─▶ sent ─▶ settled ─▶ durable
//!                     │ overtaken by retention, new epoch, new filter, folded
//!                     └▶ gap or digest, then the difference between what was told and what stands
//! ```
//!
//! It must not know how an alarm comes about, nor what a sink speaks.

mod config;
mod files;
mod filter;
mod fold;
mod form;
mod group;
#[cfg(feature = "kafka")]
mod kafka;
mod ledger;
mod load;
mod notification;
mod pace;
mod places;
mod plan;
mod planner;
mod queue;
mod reach;
mod receiver;
mod restore;
#[cfg(test)]
mod samples;
mod set;
mod shown;
mod sink;
mod snmp;
pub mod syslog;
mod unreachable;
mod wait;
pub mod webhook;

pub use config::{Backoff, HEARTBEAT_MIN, RECEIVERS_MAX, REPLAY_MAX, ReceiverConfig, SPAN_MAX, Start, TOLD_MAX};
pub use filter::{FILTER_LIST_MAX, Filter, TypePattern, TypePatternError};
pub use group::{GROUP_LABELS_MAX, GROUP_WAIT_MAX, GroupLabel, GroupLabelError, Grouping, Standing};
#[cfg(feature = "kafka")]
pub use kafka::{KafkaConfig, KafkaSink, RecordKey};
pub use klaxon_schemas::notify::{Digest, DigestAlarm, Gap, GapReason, How, SeverityCount};
pub use notification::{Notification, What};
pub use set::{IsOurs, ReceiverMetric, Receivers, SinkBuilder};
pub use shown::{Counters, ReceiverShown, ReceiverState, ResendError};
pub use sink::{Delivered, SEND_TIME_MAX, SendError, Sink, SinkConfig, SinkLimits, SinkTools};
pub use snmp::{SnmpConfig, SnmpProfile, SnmpSink, Wrs};
pub use syslog::{SyslogConfig, SyslogSink};
pub use webhook::{WebhookConfig, WebhookSink};

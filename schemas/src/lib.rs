//! The vocabulary of alarms, its wire forms and the catalogue of alarm types.
//!
//! RFC 8632 is the model and X.733 gives the attributes. The types here cannot hold nonsense: a value is checked once, where
//! it is made, and nobody behind that door checks it again. Nothing here does I/O, knows a clock or is `async`.
//!
//! * [`names`], [`resource`], [`severity`], [`time`], [`ids`]: the values,
//! * [`event`], [`alarm`], [`action`], [`change`], [`entry`], [`state`]: what is made of them,
//! * [`access`]: who may do what,
//! * [`child`]: the nodes below this one, and what they send,
//! * [`notify`]: what receivers are told, and what is kept of it,
//! * [`labels`]: how the Prometheus world names and picks alarms,
//! * [`wire`]: the versioned JSON forms, the only ones that leave or outlive a process,
//! * [`catalogue`]: the inventory of alarm types,
//! * [`starlingx`]: StarlingX's words for all this,
//! * [`mib`]: what SNMP shows,
//! * [`error`]: errors in words.

pub mod access;
pub mod action;
pub mod alarm;
pub mod catalogue;
pub mod change;
pub mod child;
pub mod entry;
pub mod error;
pub mod event;
pub mod ids;
pub mod labels;
pub mod mib;
pub mod names;
pub mod notify;
pub mod resource;
pub mod severity;
pub mod starlingx;
pub mod state;
pub mod time;
pub mod wire;

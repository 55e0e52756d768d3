//! The world's side of a node: events in, alarms, history and streams out.
//!
//! Everything here reads the committed state through [`klaxon_store::Store`] and brings in what may change it through
//! [`klaxon_store::publish::Publisher`]. Nothing here decides anything about an alarm.

pub mod agent;
mod clock;
pub mod http;
pub mod notify;
mod token;
pub mod trust;
pub mod uplink;

//! SNMP, both ways: what is common to the agent, to what sends notifications and to what receives them.
//!
//! The only place that knows the library which speaks it, async-snmp. What an alarm is, it does not know.

mod agent;
mod engine;
mod notification;
mod originator;
mod user;
mod value;

pub use agent::{
    Access, Agent, AgentConfig, AgentCounts, AgentError, AgentMetric, BoxFuture, Found, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN,
    Objects, Refusals, Set, SetError, SetFailed, System, View, Who,
};
pub use engine::{Engine, EngineError, EngineHome};
pub use notification::{Inform, Notification, Unreadable, Version, decode};
pub use originator::{
    Credentials, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, OriginateError, Originator, OriginatorConfig, Outgoing,
};
pub use user::{AuthProtocol, Level, NAME_BYTES_MAX, PASSWORD_BYTES_MIN, PrivProtocol, Secret, User, UserError};
pub use value::{Oid, OidError, Value, Varbind};

//! SNMP, both ways: what is common to the agent, to what sends notifications and to what receives them.
//!
//! The only place that knows the library which speaks it, async-snmp. What an alarm is, it does not know.

mod agent;
mod engine;
mod inbound;
mod notification;
mod originator;
mod user;
mod value;

pub use agent::{
    Access, Agent, AgentConfig, AgentCounts, AgentError, AgentMetric, BoxFuture, Found, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN,
    Objects, Refusals, Set, SetError, SetFailed, System, View, Who,
};
pub use engine::{ENGINE_FILE, Engine, EngineError, EngineHome, restored};
pub use inbound::{Answer, AnswerError, Discovery, Inbound, REPORTS_PER_SECOND_MAX, Refused, Users, Usm, UsmStats};
pub use notification::{Inform, Notification, Secured, Unreadable, Version, decode};
pub use originator::{
    Credentials, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, OriginateError, Originator, OriginatorConfig, Outgoing,
};
pub use user::{AuthProtocol, EngineId, Level, NAME_BYTES_MAX, PASSWORD_BYTES_MIN, PrivProtocol, Secret, User, UserError};
pub use value::{Oid, OidError, Value, Varbind};

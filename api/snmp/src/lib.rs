//! SNMP, both ways: what is common to the agent, to what sends notifications and to what receives them.
//!
//! The only place that knows the library which speaks it, async-snmp. What an alarm is, it does not know.

mod engine;
mod inbound;
mod notification;
mod user;
mod value;

pub use engine::{Engine, EngineError};
pub use inbound::{Answer, AnswerError, Discovery, Inbound, REPORTS_PER_SECOND_MAX, Refused, Users, Usm, UsmStats};
pub use notification::{Inform, Notification, Secured, Unreadable, Version, decode};
pub use user::{AuthProtocol, EngineId, Level, NAME_BYTES_MAX, PASSWORD_BYTES_MIN, PrivProtocol, Secret, User, UserError};
pub use value::{Oid, Value, Varbind};

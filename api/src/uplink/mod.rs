//! Uplinks that end here: the nodes below connect, prove who they are, and send what became of their alarms or events.

pub mod codec;

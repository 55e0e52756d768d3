//! Correlators on an Apache Kafka where things fail: brokers and correlators are killed and put to sleep, topics and offsets are
//! lost, and others write what does not belong there.
#![cfg(feature = "kafka")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells its figures, and the logs of what failed")]

#[path = "kafka/damage.rs"]
mod damage;
mod harness;
#[path = "kafka/kills.rs"]
mod kills;
#[path = "kafka/nodes.rs"]
mod nodes;
#[path = "kafka/oracle.rs"]
mod oracle;
#[path = "kafka/restored.rs"]
mod restored;
#[path = "kafka/tools.rs"]
mod tools;
#[path = "harness/trapd.rs"]
mod trapd;

//! The journal of a centre that outgrew one machine: topics of an Apache Kafka, which replicates, divides and fences.
//!
//! Three topics hold what a journal holds, divided by site in one way: what came in, what followed from it, and the state that it
//! left. A fourth has how far the receivers of notifications are.

mod cluster;
mod place;
mod topics;

pub use cluster::{Cluster, ClusterError, Sasl, SaslMechanism, Tls};
pub use place::{PARTITIONS_MAX, partition_of};
pub use topics::{Finding, Found, Topic, TopicShown, Weight, check, create};

//! The journal of a centre that outgrew one machine: topics of an Apache Kafka, which replicates, divides and fences.
//!
//! Three topics hold what a journal holds, divided by site in one way: what came in, what followed from it, and the state that it
//! left. A fourth has how far the receivers of notifications are.

mod cluster;
mod copy;
mod cursors;
mod door;
mod input;
mod output;
mod place;
mod probe;
mod record;
mod reset;
mod restore;
mod teller;
mod topics;
mod transaction;

pub use cluster::{Cluster, ClusterError, Sasl, SaslMechanism, Tls, Unreached};
#[doc(hidden)]
pub use rdkafka;
pub use rdkafka::consumer::ConsumerGroupMetadata;
pub use rdkafka::error::KafkaError;

pub use copy::{Copy, Copying, Record};
pub use cursors::{Cursors, KeptRecord, Notifiers, ends, load_cursors, reaches};
pub use door::{Events, Place, Sent, is_full};
pub use input::{Input, Moved, Polled};
pub use output::Transactions;
pub use place::{PARTITIONS_MAX, partition_of};
pub use probe::Probe;
pub use record::{Mark, ReadUpTo, StateFact, Unread, site_of_entry};
pub use reset::{Partition, ResetError, Standing, look, new_epoch, reset};
pub use restore::{RestoreError, Restored, Restorer};
pub use teller::{TellError, Teller, TellerConfig};
pub use topics::{Finding, Found, Topic, TopicShown, Weight, check, create};
pub use transaction::TransactionError;

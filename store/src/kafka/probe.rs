//! Whether the brokers take what comes in.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::MetadataTopic;

use super::cluster::{Cluster, ClusterError};
use super::topics::Topic;

/// Asks the brokers whether they would take an event, without sending one.
pub struct Probe {
    consumer: BaseConsumer,
    events: String,
    min_insync: usize,
}

impl Probe {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn new(cluster: &Cluster) -> Result<Self, ClusterError> {
        let consumer = cluster.client().create().map_err(ClusterError::Settings)?;
        Ok(Self { consumer, events: Topic::Events.name(cluster), min_insync: cluster.min_insync.into() })
    }

    /// Of which partitions they would: those that have a leader, and as many copies up to date as must have what is acknowledged.
    /// Nothing if no broker answers within that time.
    pub fn takes(&self, wait: Duration) -> Option<Vec<u16>> {
        let metadata = self.consumer.fetch_metadata(Some(&self.events), wait).ok()?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let taken = partitions.filter(|one| one.leader() >= 0 && one.isr().len() >= self.min_insync);
        Some(taken.filter_map(|one| u16::try_from(one.id()).ok()).collect())
    }
}

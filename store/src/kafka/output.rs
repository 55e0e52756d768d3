//! What a correlator writes: changes and state, with how far it has read, in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Subject;
use klaxon_schemas::ids::AlarmId;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::{Cluster, ClusterError};
use super::record::{Mark, ReadUpTo, alarm_key, write_alarm, write_change, write_mark, write_put};
use super::topics::Topic;
use super::transaction::{TransactionError, Transactional};
use crate::Results;
use crate::journal::record::forgets;

/// The one transactional producer of a correlator.
pub struct Transactions {
    producer: Transactional,
    changes: String,
    state: String,
    events: String,
}

impl Transactions {
    /// A producer by this name, which fences off whoever had it before and ends what that left open.
    ///
    /// # Errors
    /// No broker answers, or it is told to give up before one does.
    pub fn new(cluster: &Cluster, name: &str, give_up: &dyn Fn() -> bool) -> Result<Self, ClusterError> {
        let producer = Transactional::new(cluster, name, give_up)?;
        let name = |topic: Topic| topic.name(cluster);
        Ok(Self { producer, changes: name(Topic::Changes), state: name(Topic::State), events: name(Topic::Events) })
    }

    /// Commits what followed in some partitions, each with where its events were read up to, as one.
    ///
    /// # Errors
    /// Nothing of it is committed then; or it is not known whether it is, and a producer by the same name finds out as it begins.
    pub fn commit(
        &self,
        group: &Arc<ConsumerGroupMetadata>,
        parts: impl IntoIterator<Item = (u16, ReadUpTo, Results)>,
        give_up: &dyn Fn() -> bool,
    ) -> Result<(), TransactionError> {
        self.producer.commit(give_up, |producer| {
            let mut offsets = TopicPartitionList::new();
            for (partition, read, results) in parts {
                self.send_all(partition.into(), read, results)?;
                offsets.add_partition_offset(&self.events, partition.into(), Offset::Offset(read.next))?;
            }
            producer.send_offsets(offsets, Arc::clone(group), give_up)
        })
    }

    fn send_all(&self, partition: i32, read: ReadUpTo, results: Results) -> Result<(), KafkaError> {
        // However often an alarm changed in it, the state has it once.
        let mut alarms: BTreeMap<AlarmId, Option<&Arc<Alarm>>> = BTreeMap::new();
        for change in &results.changes {
            let (key, payload) = write_change(change);
            self.producer.send(&self.changes, partition, &key, Some(&payload))?;
            if let Subject::Alarm { alarm, .. } = &change.subject
                && !change.past
            {
                alarms.insert(alarm.id, (!forgets(change.kind)).then_some(alarm));
            }
        }
        alarms.extend(results.touched.iter().map(|alarm| (alarm.id, Some(alarm))));
        let send = |key: &str, payload: Option<&[u8]>| self.producer.send(&self.state, partition, key, payload);
        for (id, alarm) in alarms {
            send(&alarm_key(id), alarm.map(|alarm| write_alarm(alarm)).as_deref())?;
        }
        for (key, record) in &results.puts {
            let (key, payload) = write_put(key, record.as_ref());
            send(&key, payload.as_deref())?;
        }
        let (key, payload) = write_mark(&Mark { read, cursor: results.cursor });
        send(key, Some(&payload))
    }
}

//! What an operator does where the state of a partition and the group's offset do not belong together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use klaxon_schemas::alarm::{Alarm, ChangeNumber, Clearance, ClearedBy};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::ids::{Epoch, Seq};
use klaxon_schemas::names::{Site, Text};
use klaxon_schemas::state::Cursor;
use klaxon_schemas::time::JournalTime;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::{Cluster, ClusterError, REQUEST_WAIT};
use super::input::{CORRELATORS, are_others, group_of};
use super::output::Transactions;
use super::record::{Mark, ReadUpTo};
use super::restore::{RestoreError, Restorer};
use super::topics::Topic;
use super::transaction::TransactionError;
use crate::Results;

/// An epoch is the time in seconds at which it begins, followed by so many bits with the partition: no two partitions number
/// changes in the same one. That it is near the time in milliseconds keeps it below [`Epoch::LATEST`].
const PARTITION_BITS: u32 = 10;
/// What history says of an alarm that is given up.
const GIVEN_UP: &str = "the state of its partition was lost: klaxon kafka reset";
/// Who is not in the correlators' way: no node can be called so.
const NAME: &str = " reset";

/// How the state of a partition and the offset of the correlators' group stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was read of it.
    Fresh,
    /// They agree.
    Good {
        /// Up to where both have come.
        next: i64,
    },
    /// The state is gone.
    Lost {
        /// Up to where the group has read.
        group: i64,
    },
    /// They do not agree.
    Apart {
        /// Up to where the state has come.
        state: i64,
        /// Up to where the group has read, if it knows that.
        group: Option<i64>,
    },
    /// They agree, and the events are others than those that were read, or end before.
    Beyond {
        /// Up to where both have come.
        next: i64,
    },
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub number: u16,
    /// How it was found.
    pub standing: Standing,
    /// Where its events end.
    pub end: i64,
    /// How many alarms its state has, cleared ones too; of one that was lost, how many are given up.
    pub alarms: usize,
    /// How far its engine had come; nothing where there is no state.
    pub cursor: Option<Cursor>,
    /// The new numbering of its changes, where one was begun.
    pub begun: Option<Epoch>,
}

/// Why nothing was reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// No broker answers.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A state cannot be read.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Correlators run, or did a few seconds ago.
    #[error("{members} correlators are in the group {group}; stop them, and wait some seconds for one that was killed")]
    Running {
        /// How many.
        members: usize,
        /// The group.
        group: String,
    },
    /// It could not be written.
    #[error("partition {partition} could not be reset")]
    Write {
        /// Which.
        partition: u16,
        /// Why.
        #[source]
        source: TransactionError,
    },
}

/// A numbering that begins now.
pub fn new_epoch(partition: u16) -> Epoch {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Epoch(since.as_secs() << PARTITION_BITS | u64::from(partition))
}

/// Tells how all partitions stand. Changes nothing. It blocks.
///
/// # Errors
/// No broker answers, or a state cannot be read.
pub fn look(cluster: &Cluster) -> Result<Vec<Partition>, ResetError> {
    let (consumer, restorer, mut all) = (group_reader(cluster)?, Restorer::new(cluster)?, Vec::new());
    let events = Topic::Events.name(cluster);
    let mut asked = TopicPartitionList::new();
    for number in 0..cluster.partitions {
        asked.add_partition(&events, number.into());
    }
    let told = consumer.committed_offsets(asked, REQUEST_WAIT).map_err(|error| cluster.unreachable(error))?;
    for number in 0..cluster.partitions {
        let restored = restorer.restore(number)?;
        let (_, end) =
            consumer.fetch_watermarks(&events, number.into(), REQUEST_WAIT).map_err(|error| cluster.unreachable(error))?;
        let group = told.find_partition(&events, number.into()).and_then(|element| match element.offset() {
            Offset::Offset(next) => Some(next),
            _ => None,
        });
        let standing = match (restored.mark.as_ref(), group) {
            (None, None) => Standing::Fresh,
            (None, Some(group)) => Standing::Lost { group },
            (Some(Mark { read, .. }), Some(group)) if read.next == group => {
                let are_others = are_others(&consumer, &events, number, *read).map_err(|error| cluster.unreachable(error))?;
                if are_others { Standing::Beyond { next: group } } else { Standing::Good { next: group } }
            }
            (Some(Mark { read, .. }), group) => Standing::Apart { state: read.next, group },
        };
        let cursor = restored.mark.map(|mark| mark.cursor);
        all.push(Partition { number, standing, end, alarms: restored.alarms.len(), cursor, begun: None });
    }
    Ok(all)
}

/// Begins a new numbering of changes in partitions whose state is gone, from where the group has read; with `force` also in
/// those whose state does not agree with the group, from where the state has come: it is kept. None goes on behind the end of its
/// events. Others stay as they are. No correlator may run. It blocks.
///
/// What stood in a partition whose state is gone is given up: each alarm that its changes still tell of is retired by a change
/// of `site`, so that whoever follows them knows.
///
/// # Errors
/// Correlators run, no broker answers, or a state cannot be read. What was reset before is.
pub fn reset(cluster: &Cluster, site: &Site, force: bool) -> Result<Vec<Partition>, ResetError> {
    let consumer = group_reader(cluster)?;
    let group = group_of(cluster);
    let groups = consumer.client().fetch_group_list(Some(&group), REQUEST_WAIT).map_err(|error| cluster.unreachable(error))?;
    let members: usize = groups.groups().iter().map(|group| group.members().len()).sum();
    if members > 0 {
        return Err(ResetError::Running { members, group });
    }
    let mut all = look(cluster)?;
    let changes = Restorer::of(cluster, Topic::Changes)?;
    let as_member = consumer.group_metadata().map(Arc::new).ok_or_else(|| cluster.unreachable(KafkaError::Canceled))?;
    let mut output = None;
    for one in &mut all {
        let (next, lost) = match one.standing {
            Standing::Lost { group } => (group, changes.standing(one.number)?),
            Standing::Apart { state: next, .. } | Standing::Beyond { next } if force => (next, BTreeMap::new()),
            Standing::Fresh | Standing::Good { .. } | Standing::Apart { .. } | Standing::Beyond { .. } => continue,
        };
        // Where the brokers' clock stood when it was looked is told by what comes next.
        let read = ReadUpTo { next: next.min(one.end), at: JournalTime::default() };
        let cursor = one.cursor.clone().unwrap_or_default();
        // Beyond those before it, whatever the clock says.
        let own = lost.values().filter(|alarm| alarm.owner.is_none());
        let last = own.map(|alarm| alarm.last_change.epoch).max().unwrap_or_default().max(cursor.epoch);
        let epoch = new_epoch(one.number).max(Epoch(last.0 + (1 << PARTITION_BITS)));
        let changes: Vec<_> = (1..).zip(lost.into_values()).map(|(seq, alarm)| given_up(site, epoch, seq, &alarm)).collect();
        if matches!(one.standing, Standing::Lost { .. }) {
            one.alarms = changes.len();
        }
        let last_seq = Seq(changes.len() as u64);
        let results = Results { changes, cursor: Cursor { epoch, last_seq, ..cursor }, ..Results::default() };
        let output = match &mut output {
            Some(output) => output,
            none => none.insert(Transactions::new(cluster, NAME, &|| false)?),
        };
        let written = output.commit(&as_member, [(one.number, read, results)], &|| false);
        written.map_err(|source| ResetError::Write { partition: one.number, source })?;
        one.begun = Some(epoch);
    }
    Ok(all)
}

/// The change that retires an alarm of which nothing is known any more.
fn given_up(site: &Site, epoch: Epoch, seq: u64, alarm: &Alarm) -> Arc<Change> {
    let (number, now) = (ChangeNumber { epoch, seq: Seq(seq) }, crate::node::now());
    let cleared = alarm.cleared.clone().or(Some(Clearance { at: now, by: ClearedBy::Realignment }));
    let last_change = if alarm.owner.is_none() { number } else { alarm.last_change };
    let alarm = Arc::new(Alarm { cleared, stale: None, last_change, changed_at: now, ..alarm.clone() });
    Arc::new(Change {
        site: site.clone(),
        number,
        at: now,
        past: false,
        kind: ChangeKind::Retired,
        reasons: Vec::new(),
        actor: None,
        from: None,
        note: Text::new(GIVEN_UP).ok(),
        subject: Subject::Alarm { alarm, previous_severity: None },
        place: None,
    })
}

/// Asks as the group, without joining it. An offset that a transaction is about to move is waited for.
fn group_reader(cluster: &Cluster) -> Result<BaseConsumer, ClusterError> {
    cluster.reader(CORRELATORS, "read_committed").create().map_err(ClusterError::Settings)
}

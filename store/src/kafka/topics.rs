//! The topics: what they have to be like, making them, and looking whether they are.

use std::fmt;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::cluster::{Cluster, ClusterError, REQUEST_WAIT};

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The largest record: the largest entry with all that Kafka writes around it.
const RECORD_BYTES_MAX: u64 = 2 << 20;
/// Where what is compacted is cut, so that a restart reads little that is no more.
const STATE_SEGMENT_BYTES: u64 = 64 << 20;

/// A topic of a centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// What came in: anybody may produce here.
    Events,
    /// What followed from it: anybody may read.
    Changes,
    /// What stands: one record for each alarm and each thing that the engine keeps.
    State,
    /// How far the receivers of notifications are.
    Cursors,
}

/// A setting that a topic must have, and how bad it is if it has another.
struct Wanted {
    name: &'static str,
    value: String,
    weight: Weight,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It works, but not as well as it could; it may be meant.
    Odd,
    /// Something would be lost or wrong: no node starts with it.
    Wrong,
}

/// Something about a topic that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which topic, by its whole name.
    pub topic: String,
    /// How bad it is.
    pub weight: Weight,
    /// What is wrong, and what would be right.
    pub text: String,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicShown {
    /// Its whole name.
    pub name: String,
    /// How many partitions it has; 0 if it is not there.
    pub partitions: usize,
    /// How many copies there are of the partition that has the fewest.
    pub replicas: usize,
    /// How many of them are up to date, at the partition where that is worst.
    pub insync: usize,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// How many brokers there are.
    pub brokers: usize,
    /// The topics, as they are.
    pub topics: Vec<TopicShown>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl Found {
    /// Whether a node may work with it.
    pub fn is_usable(&self) -> bool {
        self.findings.iter().all(|finding| finding.weight < Weight::Wrong)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.topic, self.text)
    }
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Events, Self::Changes, Self::State, Self::Cursors];

    /// Its name in a Kafka.
    pub fn name(self, cluster: &Cluster) -> String {
        let name = match self {
            Self::Events => "events",
            Self::Changes => "changes",
            Self::State => "state",
            Self::Cursors => "cursors",
        };
        format!("{}{name}", cluster.prefix)
    }

    fn is_compacted(self) -> bool {
        matches!(self, Self::State | Self::Cursors)
    }

    /// What it is made with.
    fn wanted(self, cluster: &Cluster) -> Vec<Wanted> {
        let must = |name, value: &str| Wanted { name, value: value.to_owned(), weight: Weight::Wrong };
        let should = |name, value: u64| Wanted { name, value: value.to_string(), weight: Weight::Odd };
        let mut wanted = vec![
            must("cleanup.policy", if self.is_compacted() { "compact" } else { "delete" }),
            must("min.insync.replicas", &cluster.min_insync.to_string()),
            must("unclean.leader.election.enable", "false"),
            should("max.message.bytes", RECORD_BYTES_MAX),
        ];
        match self {
            // The time of what came in is the time of the journal.
            Self::Events => {
                wanted.extend([must("message.timestamp.type", "LogAppendTime"), should("retention.ms", 7 * DAY_MS)]);
            }
            Self::Changes => wanted.push(should("retention.ms", 90 * DAY_MS)),
            Self::State | Self::Cursors => wanted.extend([
                should("segment.bytes", STATE_SEGMENT_BYTES),
                should("segment.ms", HOUR_MS),
                // A node that was off for longer does not learn what was deleted meanwhile.
                should("delete.retention.ms", 7 * DAY_MS),
                should("max.compaction.lag.ms", 6 * HOUR_MS),
                Wanted { name: "min.cleanable.dirty.ratio", value: "0.1".to_owned(), weight: Weight::Odd },
            ]),
        }
        wanted
    }
}

/// Makes the topics that are not there, and tells their names. What is there stays as it is: [`check`] tells what it lacks.
///
/// # Errors
/// No broker answers. What a broker refuses is a finding of the topic.
pub async fn create(cluster: &Cluster) -> Result<(Vec<String>, Vec<Finding>), ClusterError> {
    let admin = Admin::new(cluster).await?;
    let missing: Vec<Topic> = Topic::ALL.into_iter().filter(|topic| admin.topic(*topic).is_none()).collect();
    let named: Vec<(String, Vec<Wanted>)> = missing.iter().map(|topic| (topic.name(cluster), topic.wanted(cluster))).collect();
    let made: Vec<NewTopic<'_>> = named
        .iter()
        .map(|(name, wanted)| {
            let replication = TopicReplication::Fixed(cluster.replication.into());
            let topic = NewTopic::new(name, cluster.partitions.into(), replication);
            wanted.iter().fold(topic, |topic, wanted| topic.set(wanted.name, &wanted.value))
        })
        .collect();
    if made.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let outcome = admin.client.create_topics(&made, &options()).await.map_err(|error| cluster.unreachable(error))?;
    let (mut created, mut findings) = (Vec::new(), Vec::new());
    for one in outcome {
        match one {
            // Another node was quicker.
            Ok(name) | Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => created.push(name),
            Err((topic, code)) => {
                let text = match code {
                    RDKafkaErrorCode::InvalidReplicationFactor => {
                        let (copies, brokers) = (cluster.replication, admin.metadata.brokers().len());
                        format!("replication_factor {copies} needs as many brokers, and there are {brokers}")
                    }
                    code => format!("the brokers do not make it: {code}"),
                };
                findings.push(Finding { topic, weight: Weight::Wrong, text });
            }
        }
    }
    Ok((created, findings))
}

/// Looks whether the topics are what they have to be.
///
/// # Errors
/// No broker answers.
pub async fn check(cluster: &Cluster) -> Result<Found, ClusterError> {
    let admin = Admin::new(cluster).await?;
    let mut found = Found { brokers: admin.metadata.brokers().len(), ..Found::default() };
    for topic in Topic::ALL {
        let name = topic.name(cluster);
        let Some(metadata) = admin.topic(topic) else {
            let text = "it is not there; klaxon kafka init makes it".to_owned();
            found.findings.push(Finding { topic: name.clone(), weight: Weight::Wrong, text });
            found.topics.push(TopicShown { name, partitions: 0, replicas: 0, insync: 0 });
            continue;
        };
        let shown = shown(name, metadata);
        found.findings.extend(amiss(cluster, &shown));
        let (described, name) = (admin.settings(&shown.name).await?, shown.name.clone());
        found.topics.push(shown);
        let Some(described) = described else {
            let text = "the brokers do not tell its settings; see that they are as klaxon kafka init makes them".to_owned();
            found.findings.push(Finding { topic: name, weight: Weight::Odd, text });
            continue;
        };
        for wanted in topic.wanted(cluster) {
            let has = described.get(wanted.name).and_then(|entry| entry.value.as_deref()).unwrap_or("nothing");
            if !is_as_wanted(&wanted, has) {
                let text = format!("{} is {has} and should be {}", wanted.name, wanted.value);
                found.findings.push(Finding { topic: name.clone(), weight: wanted.weight, text });
            }
        }
    }
    Ok(found)
}

/// More copies that must have what is acknowledged are as good, and so is to keep longer that something was deleted.
fn is_as_wanted(wanted: &Wanted, has: &str) -> bool {
    match (wanted.name, has.parse::<u64>(), wanted.value.parse::<u64>()) {
        ("min.insync.replicas" | "delete.retention.ms", Ok(has), Ok(wanted)) => has >= wanted,
        _ => has == wanted.value,
    }
}

fn shown(name: String, topic: &MetadataTopic) -> TopicShown {
    let fewest = |count: fn(&rdkafka::metadata::MetadataPartition) -> usize| topic.partitions().iter().map(count).min();
    TopicShown {
        name,
        partitions: topic.partitions().len(),
        replicas: fewest(|partition| partition.replicas().len()).unwrap_or(0),
        insync: fewest(|partition| partition.isr().len()).unwrap_or(0),
    }
}

/// What is amiss with its partitions and copies.
fn amiss(cluster: &Cluster, topic: &TopicShown) -> Vec<Finding> {
    let finding = |weight, text| Finding { topic: topic.name.clone(), weight, text };
    let mut findings = Vec::new();
    let (has, wanted) = (topic.partitions, usize::from(cluster.partitions));
    if has != wanted {
        findings.push(finding(
            Weight::Wrong,
            format!("it has {has} partitions and should have {wanted}: a site would be elsewhere"),
        ));
    }
    let (has, wanted) = (topic.replicas, usize::from(cluster.replication));
    if has < wanted {
        findings.push(finding(Weight::Odd, format!("it has {has} copies and should have {wanted}")));
    }
    let (has, wanted) = (topic.insync, usize::from(cluster.min_insync));
    if has < wanted {
        let text = format!("{has} copies are up to date and {wanted} must have what is acknowledged: nothing is taken now");
        findings.push(finding(Weight::Odd, text));
    }
    findings
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_WAIT)).operation_timeout(Some(REQUEST_WAIT))
}

/// Speaks with the brokers about topics.
struct Admin<'a> {
    cluster: &'a Cluster,
    client: AdminClient<DefaultClientContext>,
    metadata: Metadata,
}

impl<'a> Admin<'a> {
    async fn new(cluster: &'a Cluster) -> Result<Self, ClusterError> {
        let asked = cluster.clone();
        let metadata = tokio::task::spawn_blocking(move || asked.reach()).await.expect("the client does not panic")?;
        let client = cluster.client().create().map_err(ClusterError::Settings)?;
        Ok(Self { cluster, client, metadata })
    }

    fn topic(&self, topic: Topic) -> Option<&MetadataTopic> {
        let name = topic.name(self.cluster);
        self.metadata.topics().iter().find(|topic| topic.name() == name && !topic.partitions().is_empty())
    }

    /// Nothing if this client may not ask for them.
    async fn settings(&self, topic: &str) -> Result<Option<ConfigResource>, ClusterError> {
        let resource = [ResourceSpecifier::Topic(topic)];
        let described = self.client.describe_configs(&resource, &options()).await;
        let mut described = described.map_err(|error| self.cluster.unreachable(error))?;
        Ok(match described.pop() {
            Some(Ok(resource)) => Some(resource),
            Some(Err(code)) => {
                tracing::debug!(topic, %code, "the brokers do not tell its settings");
                None
            }
            None => None,
        })
    }
}

//! `klaxon kafka`: the topics of a centre whose journal is in an Apache Kafka. No node is asked.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use klaxon_schemas::names::Site;
use klaxon_schemas::severity::Severity;
use klaxon_store::kafka::{self, Cluster, Finding, Found, Partition, ResetError, RestoreError, Standing, Weight};
use serde_json::json;

use super::failure::{Code, Failure, Outcome};
use super::output::{Output, Style};
use super::table::{Cell, Column, Table};
use crate::config::Config;

/// What is done.
#[derive(Debug, Subcommand)]
pub(super) enum KafkaCommand {
    /// Make the topics that are not there, and look at all of them
    Init(Which),
    /// Look whether the topics are as they have to be; changes nothing
    Check(Which),
    /// Make partitions correlate again whose state is gone or does not agree with what was read of the events
    ///
    /// Each partition's state (topic "state") says up to which record of the events it has come, and so does the group of the
    /// correlators. Both are written in one transaction; where they do not agree, or the state is gone, correlators refuse the
    /// partition and say so. All correlators must be stopped (one that was killed counts as running for some seconds).
    ///
    /// State gone: what stood in the partition is given up, and each alarm that its changes still tell of is retired there, so
    /// that nodes and receivers know. It begins without alarms, with the events that the group had not read.
    /// State there, but not where the group is (a topic restored from a backup, the group's offsets moved or expired): only with
    /// --force. The state is kept, and the group goes on from where the state is. Events between the two that are applied already
    /// are not applied again if the group was behind; if the group was ahead, they are applied to the state again.
    /// State there, but of other events (brokers that lost what they had not written to their disks, a topic made anew): only with
    /// --force. The state is kept, and goes on where it had come, or where the events end; what is before that is passed over.
    ///
    /// The changes of each partition that is reset are numbered from 1 in a new epoch. Partitions where both agree stay as they
    /// are, also with --force.
    #[command(verbatim_doc_comment)]
    Reset(Reset),
}

/// How it is reset.
#[derive(Debug, Args)]
pub(super) struct Reset {
    #[command(flatten)]
    which: Which,
    /// Say that you know that changes are numbered anew
    #[arg(long, required = true)]
    new_epoch: bool,
    /// Also where there is a state; it is kept, and the group's offset is set to where it has come
    #[arg(long)]
    force: bool,
}

/// Which Kafka.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The node's configuration file
    #[arg(long, env = "KLAXON_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn kafka(output: &Output, command: &KafkaCommand) -> Outcome {
    let (KafkaCommand::Init(which) | KafkaCommand::Check(which) | KafkaCommand::Reset(Reset { which, .. })) = command;
    let (cluster, site) = cluster(which)?;
    if let KafkaCommand::Reset(how) = command {
        return reset(output, cluster, site, how.force && how.new_epoch).await;
    }
    let failed = |error: kafka::ClusterError| Failure::of(Code::NoNode, &error);
    let (created, refused) = match command {
        KafkaCommand::Init(_) => kafka::create(&cluster).await.map_err(failed)?,
        KafkaCommand::Check(_) | KafkaCommand::Reset(_) => (Vec::new(), Vec::new()),
    };
    let mut found = kafka::check(&cluster).await.map_err(failed)?;
    // Why it could not be made says more than that it is not there.
    found.findings.retain(|finding| refused.iter().all(|other| other.topic != finding.topic));
    found.findings.extend(refused);
    show(output, &created, &found)?;
    if found.is_usable() { Ok(()) } else { Err(Failure::told()) }
}

fn cluster(which: &Which) -> Outcome<(Cluster, Site)> {
    let usage = |message: String| Failure::new(Code::Usage, message);
    let file = which.config.display();
    let config = Config::load(&which.config).map_err(|error| Failure::of(Code::Usage, &error))?;
    let cluster = config.journal.cluster().map_err(|(key, reason)| usage(format!("{file}: {key}: {reason}")))?;
    let cluster = cluster.ok_or_else(|| usage(format!("{file}: journal.kind is \"embedded\": it names no Kafka")))?;
    Ok((cluster, config.node.site))
}

fn show(output: &Output, created: &[String], found: &Found) -> Outcome {
    if output.json {
        let topics: Vec<_> = found
            .topics
            .iter()
            .map(|topic| {
                let (name, partitions, replicas, insync) = (&topic.name, topic.partitions, topic.replicas, topic.insync);
                json!({ "name": name, "partitions": partitions, "replicas": replicas, "insync": insync })
            })
            .collect();
        let finding = |finding: &Finding| {
            let weight = if finding.weight == Weight::Wrong { "wrong" } else { "odd" };
            json!({ "topic": finding.topic, "weight": weight, "text": finding.text })
        };
        let findings: Vec<_> = found.findings.iter().map(finding).collect();
        let (brokers, usable) = (found.brokers, found.is_usable());
        let shown = json!({ "brokers": brokers, "created": created, "topics": topics, "findings": findings, "usable": usable });
        return Ok(output.json(&shown)?);
    }
    let mut table = Table::new(&[
        Column::left("TOPIC"),
        Column::right("PARTITIONS"),
        Column::right("COPIES"),
        Column::right("UP TO DATE"),
        Column::left("STATE"),
    ]);
    for topic in &found.topics {
        let worst = found.findings.iter().filter(|finding| finding.topic == topic.name).map(|finding| finding.weight).max();
        let (style, state) = match (worst, created.contains(&topic.name)) {
            (Some(Weight::Wrong), _) => (Style::Severity(Severity::Major), "wrong"),
            (Some(Weight::Odd), _) => (Style::Plain, "odd"),
            (None, true) => (Style::Plain, "made"),
            (None, false) => (Style::Plain, "good"),
        };
        let numbers = [topic.partitions, topic.replicas, topic.insync].map(|number| Cell::from(number.to_string()));
        table.row(std::iter::once(Cell::from(&topic.name)).chain(numbers).chain([Cell::new(style, state)]).collect());
    }
    output.text(&table.render(output))?;
    for finding in &found.findings {
        output.line(&finding.to_string())?;
    }
    Ok(())
}

async fn reset(output: &Output, cluster: Cluster, site: Site, force: bool) -> Outcome {
    // It blocks.
    let all = tokio::task::spawn_blocking(move || kafka::reset(&cluster, &site, force)).await.expect("it does not panic");
    let all = all.map_err(|error| match error {
        ResetError::Cluster(_) | ResetError::Restore(RestoreError::Cluster(_)) => Failure::of(Code::NoNode, &error),
        ResetError::Running { .. } | ResetError::Restore(RestoreError::Open { .. }) => Failure::of(Code::Later, &error),
        ResetError::Restore(_) | ResetError::Write { .. } => Failure::of(Code::Failed, &error),
    })?;
    let is_left =
        |one: &Partition| matches!(one.standing, Standing::Apart { .. } | Standing::Beyond { .. }) && one.begun.is_none();
    if output.json {
        output.json(&json!({ "partitions": all.iter().map(form).collect::<Vec<_>>() }))?;
    } else {
        let mut table = Table::new(&[
            Column::right("PARTITION"),
            Column::right("ALARMS"),
            Column::right("STATE UP TO"),
            Column::right("GROUP UP TO"),
            Column::left("NOW"),
        ]);
        for one in &all {
            let (state, group) = places(one);
            let number = |number: Option<i64>| Cell::from(number.map_or_else(|| "-".to_owned(), |number| number.to_string()));
            let (style, now) = match (one.standing, one.begun) {
                (_, Some(epoch)) => (Style::Plain, format!("begins anew in epoch {epoch}")),
                (Standing::Fresh, None) => (Style::Plain, "nothing was read yet".to_owned()),
                (Standing::Apart { .. }, None) => (Style::Severity(Severity::Major), "refused: there is a state".to_owned()),
                (Standing::Beyond { .. }, None) => {
                    (Style::Severity(Severity::Major), "refused: its events are others".to_owned())
                }
                (_, None) => (Style::Plain, "good".to_owned()),
            };
            let (partition, alarms) = (Cell::from(one.number.to_string()), Cell::from(one.alarms.to_string()));
            table.row(vec![partition, alarms, number(state), number(group), Cell::new(style, &now)]);
        }
        output.text(&table.render(output))?;
    }
    if all.iter().any(is_left) {
        let hint =
            "there is a state that does not agree with the group or the events; --force keeps it and goes on from where it is";
        return Err(Failure::new(Code::Failed, hint));
    }
    Ok(())
}

/// Up to where state and group have come.
fn places(one: &Partition) -> (Option<i64>, Option<i64>) {
    match one.standing {
        Standing::Fresh => (None, None),
        Standing::Good { next } | Standing::Beyond { next } => (Some(next), Some(next)),
        Standing::Lost { group } => (None, Some(group)),
        Standing::Apart { state, group } => (Some(state), group),
    }
}

fn form(one: &Partition) -> serde_json::Value {
    let was = match one.standing {
        Standing::Fresh => "fresh",
        Standing::Good { .. } => "good",
        Standing::Lost { .. } => "lost",
        Standing::Apart { .. } => "apart",
        Standing::Beyond { .. } => "beyond",
    };
    let (state, group) = places(one);
    let (begun, end) = (one.begun.map(|epoch| epoch.0), one.end);
    json!({
        "partition": one.number, "was": was, "alarms": one.alarms, "state": state, "group": group, "events": end, "new_epoch": begun,
    })
}

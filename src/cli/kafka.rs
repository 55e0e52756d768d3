//! `klaxon kafka`: the topics of a centre whose journal is in an Apache Kafka. No node is asked.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use klaxon_schemas::severity::Severity;
use klaxon_store::kafka::{self, Cluster, Finding, Found, Weight};
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
}

/// Which Kafka.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The node's configuration file
    #[arg(long, env = "KLAXON_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn kafka(output: &Output, command: &KafkaCommand) -> Outcome {
    let (KafkaCommand::Init(which) | KafkaCommand::Check(which)) = command;
    let cluster = cluster(which)?;
    let failed = |error: kafka::ClusterError| Failure::of(Code::NoNode, &error);
    let (created, refused) = match command {
        KafkaCommand::Init(_) => kafka::create(&cluster).await.map_err(failed)?,
        KafkaCommand::Check(_) => (Vec::new(), Vec::new()),
    };
    let mut found = kafka::check(&cluster).await.map_err(failed)?;
    // Why it could not be made says more than that it is not there.
    found.findings.retain(|finding| refused.iter().all(|other| other.topic != finding.topic));
    found.findings.extend(refused);
    show(output, &created, &found)?;
    if found.is_usable() { Ok(()) } else { Err(Failure::told()) }
}

fn cluster(which: &Which) -> Outcome<Cluster> {
    let usage = |message: String| Failure::new(Code::Usage, message);
    let file = which.config.display();
    let config = Config::load(&which.config).map_err(|error| Failure::of(Code::Usage, &error))?;
    let cluster = config.journal.cluster().map_err(|(key, reason)| usage(format!("{file}: {key}: {reason}")))?;
    cluster.ok_or_else(|| usage(format!("{file}: journal.kind is \"embedded\": it names no Kafka")))
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

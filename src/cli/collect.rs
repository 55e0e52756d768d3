//! `klaxon collect`: what the collectors of a node see; or one look, here and now, without a node.

use std::path::PathBuf;

use clap::Args;
use klaxon_ingest::collect::{Look, once};
use klaxon_schemas::wire::v1::{Collector, CollectorState, Reading};
use serde_json::{Value, json};

use super::alarms::read;
use super::client::{Client, Query};
use super::failure::{Code, Failure, Outcome};
use super::output::{Output, Style};
use super::table::{Cell, Column, Table};
use super::time::{age, now};
use super::{Whom, find, wait};
use crate::config::Config;

/// Which collectors, and how they are asked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  klaxon collect                        how the collectors of the node are
  klaxon collect filesystem             what one of them saw last
  klaxon collect filesystem --once      look now, on this machine; needs no node and tells nobody")]
pub(super) struct CollectArgs {
    /// One collector: cpu, memory, filesystem, link, units, time, certificates, heartbeat, check/NAME
    name: Option<String>,
    /// Look once, on this machine; needs no node and tells nobody
    #[arg(long)]
    once: bool,
    /// With --once: the configuration; without one every setting has its default
    #[arg(long, env = "KLAXON_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn collect(output: &Output, node: &Whom, args: &CollectArgs) -> Outcome {
    if args.once {
        return look(output, args);
    }
    wait(async { show(output, &find(node).await?, args.name.as_deref()).await })
}

async fn show(output: &Output, client: &Client, name: Option<&str>) -> Outcome {
    let mut answer = client.get("/collectors", &Query::default()).await?;
    let mut collectors: Vec<Collector> = read(answer["collectors"].take())?;
    if let Some(name) = name {
        collectors.retain(|collector| collector.name == name);
        if collectors.is_empty() {
            return Err(Failure::new(Code::NotFound, format!("no collector of the node is called {name:?}, or it is off")));
        }
    }
    if output.json {
        return Ok(output.json(&json!({ "collectors": collectors }))?);
    }
    match (name, collectors.as_slice()) {
        (Some(_), [collector]) => {
            let mut text = table(&collectors).render(output);
            if let Some(reason) = &collector.reason {
                text.push_str(&format!("{reason}\n"));
            }
            Ok(output.text(&(text + "\n" + &readings(&collector.readings).render(output)))?)
        }
        _ => Ok(output.text(&table(&collectors).render(output))?),
    }
}

fn table(collectors: &[Collector]) -> Table {
    let columns = [
        Column::left("COLLECTOR"),
        Column::left("STATE"),
        Column::right("HOLDS"),
        Column::right("LOOKS"),
        Column::right("FAILED"),
        Column::right("LAST"),
        Column::right("TOOK"),
        Column::text("REASON"),
    ];
    let mut table = Table::new(&columns);
    for collector in collectors {
        let style = match collector.state {
            CollectorState::Running => Style::Good,
            CollectorState::Failed => Style::Severity(klaxon_schemas::severity::Severity::Major),
            CollectorState::Starting | CollectorState::NotApplicable => Style::Dim,
        };
        table.row(vec![
            Cell::from(&collector.name),
            Cell::new(style, collector.state.as_str()),
            Cell::from(collector.holds.to_string()),
            Cell::from(collector.looks.to_string()),
            Cell::from(collector.failures.to_string()),
            Cell::from(collector.looked_at.map(|at| age(at, now())).unwrap_or_default()),
            Cell::from(format!("{:.1} ms", std::time::Duration::from_micros(collector.look_us).as_secs_f64() * 1e3)),
            Cell::from(collector.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

fn readings(readings: &[Reading]) -> Table {
    let mut table = Table::new(&[Column::left("WHAT"), Column::left("LEVEL"), Column::text("VALUE")]);
    for reading in readings {
        let level = match reading.severity {
            Some(severity) => Cell::new(Style::Severity(severity), severity.as_str()),
            None => Cell::new(Style::Good, "well"),
        };
        table.row(vec![Cell::from(&reading.what), level, Cell::from(&reading.value)]);
    }
    table
}

/// Looks on this machine with each of the collectors that are asked for.
fn look(output: &Output, args: &CollectArgs) -> Outcome {
    let config = match &args.config {
        Some(file) => Config::load(file).map_err(|error| Failure::of(Code::Usage, &error))?,
        None => Config::default(),
    };
    let wrong = |(key, reason): (String, String)| Failure::new(Code::Usage, format!("{key}: {reason}"));
    let host = config.collect.host().map_err(wrong)?;
    let specs = config.collect.build().map_err(wrong)?.specs;
    let known: Vec<String> = specs.iter().map(klaxon_ingest::collect::Spec::name).collect();
    let asked: Vec<_> = specs.iter().filter(|spec| args.name.as_ref().is_none_or(|name| spec.name() == *name)).collect();
    if asked.is_empty() {
        let name = args.name.as_deref().unwrap_or_default();
        return Err(Failure::new(
            Code::NotFound,
            format!("no collector is called {name:?}, or it is off; there are {}", known.join(", ")),
        ));
    }
    let mut all = Vec::new();
    let mut failed = false;
    for spec in asked {
        let look = once(spec, &host);
        failed |= look.is_err();
        if output.json {
            all.push(shown(&spec.name(), look));
            continue;
        }
        let name = output.paint(Style::Bold, &spec.name());
        match look {
            Ok(Look { not_applicable: Some(reason), .. }) => output.line(&format!("{name}: not applicable: {reason}"))?,
            Ok(look) => output.text(&format!("{name}\n{}", readings(&look.readings).render(output)))?,
            Err(error) => output.line(&format!("{name}: {}", Failure::of(Code::Failed, &error).message))?,
        }
    }
    if output.json {
        output.json(&Value::Array(all))?;
    }
    if failed { Err(Failure::told()) } else { Ok(()) }
}

fn shown(name: &str, look: Result<Look, klaxon_ingest::collect::LookError>) -> Value {
    match look {
        Ok(look) => json!({ "name": name, "not_applicable": look.not_applicable, "readings": look.readings }),
        Err(error) => json!({ "name": name, "error": Failure::of(Code::Failed, &error).message }),
    }
}

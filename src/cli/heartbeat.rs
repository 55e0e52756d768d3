//! `klaxon heartbeat` and `klaxon heartbeats`: a program says that it is there, and who is watched in this way.

use clap::{ArgGroup, Args};
use klaxon_schemas::event::Lease;
use klaxon_schemas::names::{Site, Text};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::alarms::{pages, read, rows, short};
use super::client::{Answer, Client, Query, percent};
use super::event::patiently;
use super::failure::Outcome;
use super::output::{Output, Style, printable, remark};
use super::table::{Cell, Column, Table};
use super::time::{age, now};

/// The most heartbeats on one page of the API.
const PAGE_LIMIT: usize = 10_000;

/// A promise, or its end.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").args(["every", "end"]).required(true)),
    after_help = "\
Silence raises the alarm heartbeat.lost of the resource heartbeat=NAME; the next heartbeat clears it. What only goes on as
promised is said without a word, so that it may stand in a crontab:
  0 2 * * *  backup-everything && klaxon heartbeat backup --every 25h
Without this program: curl -X POST 'http://127.0.0.1:7780/api/v1/heartbeats/backup?every=25h'"
)]
pub(super) struct HeartbeatArgs {
    /// Who reports: a name that is its own at its site
    name: String,
    /// Within which time the next heartbeat comes: 90s, 5m, 25h
    #[arg(long, value_name = "TIME")]
    every: Option<Lease>,
    /// How bad silence is: indeterminate, warning, minor, major or critical [without it: major]
    #[arg(long, requires = "every")]
    severity: Option<Severity>,
    /// What it is that reports, in words
    #[arg(long, short, requires = "every")]
    text: Option<Text>,
    /// Its site [without it: the node's]
    #[arg(long)]
    site: Option<Site>,
    /// It will not be heard from any more, and nobody is to miss it
    #[arg(long)]
    end: bool,
}

/// Who is listed.
#[derive(Debug, Args)]
pub(super) struct HeartbeatsArgs {
    /// Of this site
    #[arg(long)]
    site: Option<Site>,
    /// Only those that are silent
    #[arg(long)]
    lost: bool,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// All, however many
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on from where the list before ended
    #[arg(long)]
    cursor: Option<String>,
}

pub(super) async fn heartbeat(output: &Output, client: &Client, args: &HeartbeatArgs) -> Outcome {
    let path = format!("/heartbeats/{}", percent(&args.name));
    let answer = match args.every {
        Some(every) => {
            let mut promise = json!({ "every": every });
            if let Some(severity) = args.severity {
                promise["severity"] = json!(severity);
            }
            if let Some(text) = &args.text {
                promise["text"] = json!(text);
            }
            if let Some(site) = &args.site {
                promise["site"] = json!(site);
            }
            patiently(|| client.post(&path, &promise)).await?
        }
        None => {
            let mut query = Query::default();
            query.add("site", args.site.as_ref());
            patiently(|| client.delete(&path, &query)).await?
        }
    };
    tell(output, args, answer)
}

/// What is more than going on as promised.
fn tell(output: &Output, args: &HeartbeatArgs, answer: Answer) -> Outcome {
    let body = answer.good()?;
    if output.json {
        return Ok(output.json(&body)?);
    }
    let name = printable(&args.name);
    if let ("cleared", Some(id)) = (body["change"].as_str().unwrap_or_default(), body["alarm"].as_str()) {
        let again = if args.end { "" } else { " is heard from again" };
        output.line(&format!("{}  {}  {name}{again}", output.paint(Style::Good, "cleared"), short(id)))?;
    }
    match args.every {
        None => output.line(&format!("{name} is not watched any more"))?,
        Some(every) if body["change"] == "logged" => output.line(&format!("{name} is watched: every {every}"))?,
        Some(_) => {}
    }
    Ok(())
}

/// A promise as the API has it.
#[derive(Debug, Deserialize)]
struct Row {
    name: Option<String>,
    site: String,
    resource: String,
    alarm_type: String,
    every_s: Lease,
    severity: Severity,
    text: Option<String>,
    last_heard_at: Timestamp,
    due_at: Option<Timestamp>,
    lost_at: Option<Timestamp>,
}

pub(super) async fn heartbeats(output: &Output, client: &Client, args: &HeartbeatsArgs) -> Outcome {
    let mut query = Query::default();
    query.add("site", args.site.as_ref());
    query.add("lost", args.lost.then_some("true"));
    query.add("limit", Some(if args.all { PAGE_LIMIT } else { args.limit as usize }));
    let mut page = pages(client, "/heartbeats", "heartbeats", &query, args.cursor.as_deref(), args.all).await?;
    if output.json {
        return Ok(output.json(&page)?);
    }
    let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
    let beats: Vec<Row> = read(page["heartbeats"].take())?;
    rows(output, &table(&beats, now()), "No heartbeats.")?;
    if let Some(next) = next {
        remark(&format!("There are more: --all shows them, --cursor {next} the next {}.", args.limit));
    }
    Ok(())
}

fn table(beats: &[Row], now: Timestamp) -> Table {
    let sites = beats.iter().any(|beat| beat.site != beats[0].site);
    let mut columns = vec![Column::left("STATE"), Column::right("EVERY"), Column::right("HEARD"), Column::right("DUE")];
    columns.extend(sites.then_some(Column::left("SITE")));
    columns.extend([Column::text("NAME"), Column::left("SEVERITY"), Column::text("TEXT")]);
    let mut table = Table::new(&columns);
    for beat in beats {
        let state = match beat.lost_at {
            Some(_) => Cell::new(Style::Severity(beat.severity), "lost"),
            None => Cell::new(Style::Good, "kept"),
        };
        let mut row = vec![
            state,
            beat.every_s.to_string().into(),
            age(beat.last_heard_at, now).into(),
            beat.due_at.map_or_else(|| "-".to_owned(), |due| age(due, now)).into(),
        ];
        row.extend(sites.then(|| beat.site.as_str().into()));
        let what = beat.name.clone().unwrap_or_else(|| format!("{} {}", beat.resource, beat.alarm_type));
        row.extend([what.into(), beat.severity.as_str().into(), beat.text.as_deref().unwrap_or_default().into()]);
        table.row(row);
    }
    table
}

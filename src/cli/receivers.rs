//! `klaxon receivers` and `klaxon drill`: who is told of alarms, how each stands, what is sent again, and whether an alarm arrives.

use clap::{ArgGroup, Args, Subcommand};
use klaxon_schemas::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::alarms::{read, rows};
use super::client::{Answer, Client, Query, percent};
use super::failure::{Code, Failure, Outcome};
use super::output::{Output, Style, printable};
use super::table::{Cell, Column, Table};
use super::time::{age, now};

/// Who is told of alarms.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  klaxon receivers                          how each of them stands
  klaxon receivers noc                      one of them, with what was counted
  klaxon receivers resend noc --from 4711   send it everything from number 4711 on again
  klaxon drill --receiver noc               does an alarm arrive there?"
)]
pub(super) struct ReceiversArgs {
    #[command(subcommand)]
    command: Option<ReceiversCommand>,
    /// One receiver
    name: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ReceiversCommand {
    /// Send a receiver its notifications again, under their old numbers
    Resend {
        /// The receiver
        name: String,
        /// The number (delivery_seq) of the first that is sent again
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        from: u64,
    },
}

/// A drill.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("whom").args(["receiver", "all"]).required(true)),
    after_help = "\
An alarm of the type klaxon.drill is raised and cleared. It takes the way of every other alarm and is as urgent as the receiver's
filter needs; others who are told of such alarms are told of it, too. The exit code is 0 if raise and clear arrived, 1 if not."
)]
pub(super) struct DrillArgs {
    /// The receiver
    #[arg(long, value_name = "NAME")]
    receiver: Option<String>,
    /// All receivers at once
    #[arg(long)]
    all: bool,
    /// For how many seconds the raise, and then the clear, is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    wait: u32,
}

/// A receiver as the API has it.
#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    kind: String,
    target: String,
    state: String,
    since: Timestamp,
    last_error: Option<String>,
    last_error_at: Option<Timestamp>,
    lag_changes: u64,
    lag_s: u64,
    assigned: u64,
    confirmed: u64,
    oldest_kept: Option<u64>,
    told: u64,
    #[serde(default)]
    realigning: bool,
    counters: Value,
}

pub(super) async fn receivers(output: &Output, client: &Client, args: &ReceiversArgs) -> Outcome {
    if let Some(ReceiversCommand::Resend { name, from }) = &args.command {
        return resend(output, client, name, *from).await;
    }
    let Some(name) = &args.name else {
        let mut answer = client.get("/receivers", &Query::default()).await?;
        if output.json {
            return Ok(output.json(&answer)?);
        }
        let all: Vec<Row> = read(answer["receivers"].take())?;
        return rows(output, &table(&all, now()), "No receivers: nobody is told of alarms.");
    };
    let answer = client.get(&format!("/receivers/{}", percent(name)), &Query::default()).await?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let row: Row = read(answer)?;
    Ok(output.text(&one(output, &row, now()))?)
}

fn style(state: &str) -> Style {
    match state {
        "ok" => Style::Good,
        "unreachable" => Style::Severity(klaxon_schemas::severity::Severity::Major),
        "retrying" => Style::Severity(klaxon_schemas::severity::Severity::Minor),
        _ => Style::Dim,
    }
}

fn lag(row: &Row) -> String {
    if row.lag_changes == 0 { "-".to_owned() } else { format!("{} ({} s)", row.lag_changes, row.lag_s) }
}

fn table(all: &[Row], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::left("RECEIVER"),
        Column::left("KIND"),
        Column::left("STATE"),
        Column::right("SINCE"),
        Column::right("LAG"),
        Column::right("SENT"),
        Column::right("CONFIRMED"),
        Column::text("LAST ERROR"),
    ]);
    for row in all {
        let error = row.last_error.as_ref().zip(row.last_error_at);
        table.row(vec![
            Cell::from(&row.name),
            Cell::from(&row.kind),
            Cell::new(style(&row.state), &row.state),
            age(row.since, now).into(),
            lag(row).into(),
            row.assigned.to_string().into(),
            row.confirmed.to_string().into(),
            error.map(|(error, at)| format!("{} ago: {error}", age(at, now))).unwrap_or_default().into(),
        ]);
    }
    table
}

fn one(output: &Output, row: &Row, now: Timestamp) -> String {
    let state = output.paint(style(&row.state), &printable(&row.state));
    let mut text = format!("{}  {state} for {}\n", output.paint(Style::Bold, &printable(&row.name)), age(row.since, now));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<16}{}\n", printable(&value)));
    line("target", format!("{} {}", row.kind, row.target));
    line("numbers", format!("{} given out, {} confirmed", row.assigned, row.confirmed));
    if let Some(oldest) = row.oldest_kept {
        line("kept", format!("from {oldest} on, for klaxon receivers resend"));
    }
    line("told", format!("{} alarms stand there", row.told));
    if row.lag_changes > 0 {
        line("lag", format!("{} changes, the oldest {} s old", row.lag_changes, row.lag_s));
    }
    if row.realigning {
        line("realigning", "how the alarms stand is being told".to_owned());
    }
    if let Some((error, at)) = row.last_error.as_ref().zip(row.last_error_at) {
        line("last error", format!("{} ago: {error}", age(at, now)));
    }
    for (name, count) in row.counters.as_object().into_iter().flatten() {
        line(&name.replace('_', " "), count.to_string());
    }
    text
}

async fn resend(output: &Output, client: &Client, name: &str, from: u64) -> Outcome {
    let answer = client.post(&format!("/receivers/{}/resend", percent(name)), &json!({ "from": from })).await?;
    let body = good(answer)?;
    if output.json {
        return Ok(output.json(&body)?);
    }
    let count = body["count"].as_u64().unwrap_or_default();
    Ok(output.line(&format!("{count} notifications from {from} on are sent to {} again", printable(name)))?)
}

/// What was answered; on a refusal for lack of a name, what to do.
fn good(answer: Answer) -> Outcome<Value> {
    if answer.status.as_u16() == 403 {
        let failure = answer.failure();
        return Err(Failure::new(Code::Failed, format!("{}; use the node's Unix socket", failure.message)));
    }
    answer.good()
}

/// One half of a drill as the API has it.
#[derive(Debug, Deserialize)]
struct Leg {
    delivery_seq: u64,
    latency_us: u64,
}

/// A drill as the API has it.
#[derive(Debug, Deserialize)]
struct Drill {
    receiver: String,
    arrived: bool,
    reason: Option<String>,
    severity: Option<String>,
    raise: Option<Leg>,
    clear: Option<Leg>,
}

pub(super) async fn drill(output: &Output, client: &Client, args: &DrillArgs) -> Outcome {
    let mut query = Query::default();
    query.add("wait_s", Some(args.wait));
    let path = args.receiver.as_ref().map_or_else(|| "/drill".to_owned(), |name| format!("/receivers/{}/drill", percent(name)));
    let mut body = good(client.post(&query.on(&path), &json!({})).await?)?;
    let shown = body.clone();
    let drills: Vec<Drill> = if args.all { read(body["drills"].take())? } else { vec![read(body)?] };
    if output.json {
        output.json(&shown)?;
    } else {
        for drill in &drills {
            output.line(&told(output, drill))?;
        }
        if drills.is_empty() {
            output.line("No receivers: nobody is told of alarms.")?;
        }
    }
    if drills.iter().all(|drill| drill.arrived) { Ok(()) } else { Err(Failure::told()) }
}

fn told(output: &Output, drill: &Drill) -> String {
    let word = if drill.arrived {
        output.paint(Style::Good, "arrived")
    } else {
        output.paint(Style::Severity(klaxon_schemas::severity::Severity::Major), "failed ")
    };
    let mut text = format!("{word}  {}", printable(&drill.receiver));
    for (name, leg) in [("raise", &drill.raise), ("clear", &drill.clear)] {
        if let Some(Leg { delivery_seq, latency_us }) = leg {
            let took = std::time::Duration::from_micros(*latency_us).as_secs_f64() * 1e3;
            text.push_str(&format!("  {name} {took:.1} ms (number {delivery_seq})"));
        }
    }
    if let Some(severity) = &drill.severity {
        text.push_str(&format!("  as {severity}"));
    }
    if let Some(reason) = &drill.reason {
        text.push_str(&format!("  {}", printable(reason)));
    }
    text
}

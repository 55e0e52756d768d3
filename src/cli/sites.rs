//! `klaxon sites` and `klaxon site`: the nodes below this one, how each stands, and who may join.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use klaxon_schemas::names::ChildName;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::alarms::{pages, read, rows};
use super::client::{Answer, Client, Query, percent};
use super::failure::{Code, Failure, Outcome};
use super::output::{Output, Style, printable, remark};
use super::table::{Cell, Column, Table};
use super::time::{age, now};
use super::uplink::RehomeArgs;

/// The most nodes on one page of the API.
const PAGE_LIMIT: usize = 1_000;
/// The most nodes that a file may enrol.
const ROWS_MAX: usize = 10_000;

/// Which nodes are listed.
#[derive(Debug, Args)]
pub(super) struct SitesArgs {
    /// Only those in this state; may be given more than once
    #[arg(long, value_enum)]
    state: Vec<State>,
    /// Only those of this kind
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only those whose name begins so
    #[arg(long)]
    prefix: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// All, however many
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on from where the list before ended
    #[arg(long)]
    cursor: Option<String>,
}

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    Awaiting,
    Enrolled,
    Connected,
    Away,
    Silent,
    Moved,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// It owns its alarms and sends their changes
    Site,
    /// A site that also relays what further sites below it send
    Region,
    /// A host of this node's own site, which sends events
    Agent,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Region => "region",
            Self::Agent => "agent",
        }
    }
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Awaiting => "awaiting",
            Self::Enrolled => "enrolled",
            Self::Connected => "connected",
            Self::Away => "away",
            Self::Silent => "silent",
            Self::Moved => "moved",
        }
    }
}

/// The nodes below, one by one.
#[derive(Debug, Subcommand)]
pub(super) enum SiteCommand {
    /// Let a node join: prints its join token, which is good once
    Add(AddArgs),
    /// List the nodes below, as `klaxon sites` does
    List(SitesArgs),
    /// Show one, with all that is known of it
    Show {
        /// The node
        name: String,
    },
    /// Let a node in that asked and waits for a person
    Approve {
        /// The node
        name: String,
    },
    /// Give a node another join token; what proved it before is void
    Token {
        /// The node
        name: String,
        /// A person must approve it once it asks in
        #[arg(long)]
        approve: bool,
    },
    /// Leave the node above for another one, once that one has let this node in; or say that it has another address
    Rehome(RehomeArgs),
    /// Leave the node above, for none; it is told when it is reached
    Leave,
    /// Give a node up: its alarms are forgotten here, and what proved it is void
    Retire {
        /// The node
        name: String,
    },
}

/// Who may join.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("who").args(["name", "from"]).required(true)),
    after_help = "\
Examples:
  klaxon site add cell-17                  a site; the name is its site's
  klaxon site add web-1 --kind agent       a host of this site
  klaxon site add cell-17 --no-token       by its certificate alone; also to let one come back that went elsewhere
  klaxon site add --from sites.csv         many: name,kind,approve in each line, the last two may be left out

The token is told once. On the node: klaxon join URL --token TOKEN"
)]
pub(super) struct AddArgs {
    /// The node: of a site, the site's own name; of an agent, its host's
    name: Option<ChildName>,
    /// A file with a node in each line: name,kind,approve
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "approve", "no_token"])]
    from: Option<PathBuf>,
    /// What it is [without it: site]
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// A person must approve it once it asks in
    #[arg(long)]
    approve: bool,
    /// It has no token: only a client certificate with its name proves it
    #[arg(long)]
    no_token: bool,
}

/// A node as the API has it.
#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    kind: String,
    state: String,
    enrolled_by: String,
    enrolled_at: Timestamp,
    join_expires_at: Option<Timestamp>,
    node: Option<String>,
    version: Option<String>,
    address: Option<String>,
    proof: Option<String>,
    connected_to: Option<String>,
    connected_since: Option<Timestamp>,
    last_heard_at: Option<Timestamp>,
    silent_since: Option<Timestamp>,
    moved: Option<Value>,
    lag_ms: Option<u64>,
    clock_offset_ms: Option<f64>,
    round_trip_ms: Option<f64>,
    received_bytes: u64,
    sent_bytes: u64,
    received_items: u64,
    missing: u64,
    pending: u64,
    alarms: Option<Map<String, Value>>,
    #[serde(default)]
    below: Vec<Value>,
}

pub(super) async fn sites(output: &Output, client: &Client, args: &SitesArgs) -> Outcome {
    let mut query = Query::default();
    for state in &args.state {
        query.add("state", Some(state.as_str()));
    }
    query.add("kind", args.kind.map(Kind::as_str));
    query.add("prefix", args.prefix.as_ref());
    query.add("limit", Some(if args.all { PAGE_LIMIT } else { args.limit as usize }));
    let mut page = pages(client, "/sites", "sites", &query, args.cursor.as_deref(), args.all).await?;
    if output.json {
        return Ok(output.json(&page)?);
    }
    let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
    let all: Vec<Row> = read(page["sites"].take())?;
    rows(output, &table(&all, now()), "No nodes below this one.")?;
    if let Some(next) = next {
        remark(&format!("There are more: --all shows them, --cursor {next} the next {}.", args.limit));
    }
    Ok(())
}

fn style(state: &str) -> Style {
    match state {
        "connected" => Style::Good,
        "silent" => Style::Severity(Severity::Major),
        "away" => Style::Severity(Severity::Minor),
        "awaiting" => Style::Severity(Severity::Warning),
        _ => Style::Dim,
    }
}

/// Of most alarms nothing is said but their number.
fn alarms(row: &Row) -> String {
    let Some(alarms) = &row.alarms else { return "-".to_owned() };
    let severities = ["critical", "major", "minor", "warning", "indeterminate"];
    let counted = severities.into_iter().filter_map(|severity| {
        let count = alarms.get(severity)?.as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} {severity}"))
    });
    let said: Vec<_> = counted.collect();
    if said.is_empty() { "0".to_owned() } else { said.join(", ") }
}

fn millis(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 10_000.0 => format!("{:.0} s", value / 1000.0),
        Some(value) => format!("{value:.0} ms"),
    }
}

fn table(all: &[Row], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::left("SITE"),
        Column::left("KIND"),
        Column::left("STATE"),
        Column::right("HEARD"),
        Column::right("LAG"),
        Column::right("CLOCK"),
        Column::left("VERSION"),
        Column::right("MISSING"),
        Column::right("PENDING"),
        Column::text("ALARMS"),
    ]);
    for row in all {
        table.row(vec![
            Cell::from(&row.name),
            Cell::from(&row.kind),
            Cell::new(style(&row.state), &row.state),
            row.last_heard_at.map_or_else(|| "-".to_owned(), |at| age(at, now)).into(),
            millis(row.lag_ms.map(|ms| ms as f64)).into(),
            millis(row.clock_offset_ms).into(),
            row.version.as_deref().unwrap_or("-").into(),
            row.missing.to_string().into(),
            row.pending.to_string().into(),
            alarms(row).into(),
        ]);
    }
    table
}

pub(super) async fn site(output: &Output, client: &Client, command: &SiteCommand) -> Outcome {
    let path = |name: &str, behind: &str| format!("/sites/{}{behind}", percent(name));
    match command {
        SiteCommand::Add(args) => add(output, client, args).await,
        SiteCommand::Rehome(args) => super::uplink::rehome(output, client, args).await,
        SiteCommand::Leave => super::uplink::leave(output, client).await,
        SiteCommand::List(args) => sites(output, client, args).await,
        SiteCommand::Show { name } => {
            let answer = client.get(&path(name, ""), &Query::default()).await?;
            if output.json {
                return Ok(output.json(&answer)?);
            }
            let row: Row = read(answer)?;
            Ok(output.text(&one(output, &row, now()))?)
        }
        SiteCommand::Approve { name } => {
            let body = good(client.post(&path(name, "/approve"), &json!({})).await?)?;
            said(output, &body, &format!("{} is let in when it asks again", printable(name)))
        }
        SiteCommand::Token { name, approve } => {
            let mut order = json!({});
            if *approve {
                order["approve"] = json!(true);
            }
            let body = good(client.post(&path(name, "/token"), &order).await?)?;
            token(output, &body)
        }
        SiteCommand::Retire { name } => {
            let body = good(client.delete(&path(name, ""), &Query::default()).await?)?;
            said(output, &body, &format!("{} is given up; its alarms are forgotten here", printable(name)))
        }
    }
}

fn said(output: &Output, body: &Value, words: &str) -> Outcome {
    if output.json { Ok(output.json(body)?) } else { Ok(output.line(words)?) }
}

/// What was answered; on a refusal for lack of a name, what to do.
fn good(answer: Answer) -> Outcome<Value> {
    if answer.status.as_u16() == 403 {
        let failure = answer.failure();
        return Err(Failure::new(Code::Failed, format!("{}; use the node's Unix socket", failure.message)));
    }
    answer.good()
}

/// The token goes to standard output alone, so that a script can take it.
fn token(output: &Output, body: &Value) -> Outcome {
    if output.json {
        return Ok(output.json(body)?);
    }
    let name = printable(body["name"].as_str().unwrap_or_default());
    match (body["token"].as_str(), body["expires_at"].as_str()) {
        (Some(token), Some(until)) => {
            output.line(token)?;
            remark(&format!("With this token {name} may join, once, until {until}; it is not told again."));
        }
        _ => remark(&format!("{name} may connect with a client certificate of that name.")),
    }
    Ok(())
}

async fn add(output: &Output, client: &Client, args: &AddArgs) -> Outcome {
    if let Some(file) = &args.from {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::new(Code::Usage, format!("cannot read {}: {error}", file.display())))?;
        let orders = orders(&text).map_err(|reason| Failure::new(Code::Usage, format!("{}:{reason}", file.display())))?;
        return add_all(output, client, &orders).await;
    }
    let mut order = json!({ "name": args.name });
    if let Some(kind) = args.kind {
        order["kind"] = json!(kind.as_str());
    }
    if args.approve {
        order["approve"] = json!(true);
    }
    if args.no_token {
        order["token"] = json!(false);
    }
    token(output, &good(client.post("/sites", &order).await?)?)
}

/// What each line of a file asks for; or what is wrong with the first that is wrong.
fn orders(text: &str) -> Result<Vec<Value>, String> {
    let mut orders = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') || (line == 1 && content.split(',').next() == Some("name")) {
            continue;
        }
        let fields: Vec<_> = content.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let wrong = |reason: String| format!("{line}: {reason}");
        if fields.len() > 3 {
            return Err(wrong(format!("has {} fields; name, kind and approve are known", fields.len())));
        }
        let name = ChildName::new(fields[0]).map_err(|error| wrong(format!("name: {error}")))?;
        let mut order = json!({ "name": name });
        if let Some(kind) = fields.get(1).filter(|kind| !kind.is_empty()) {
            let kind =
                Kind::from_str(kind, false).map_err(|_| wrong(format!("kind: {kind:?} is none of site, region, agent")))?;
            order["kind"] = json!(kind.as_str());
        }
        if let Some(approve) = fields.get(2).filter(|approve| !approve.is_empty()) {
            let approve: bool =
                approve.parse().map_err(|_| wrong(format!("approve: {approve:?} is neither true nor false")))?;
            order["approve"] = json!(approve);
        }
        orders.push(order);
        if orders.len() > ROWS_MAX {
            return Err(wrong(format!("more than {ROWS_MAX} nodes")));
        }
    }
    Ok(orders)
}

/// Each in turn; one that is refused keeps no other from being enrolled.
async fn add_all(output: &Output, client: &Client, orders: &[Value]) -> Outcome {
    let mut failed = 0;
    for order in orders {
        let answer = client.post("/sites", order).await?;
        match good(answer) {
            Ok(body) if output.json => output.json(&body)?,
            Ok(body) => {
                let word = |key: &str| printable(body[key].as_str().unwrap_or_default());
                output.line(&format!("{},{}", word("name"), word("token")))?;
            }
            Err(failure) => {
                failed += 1;
                remark(&format!("{}: {}", order["name"].as_str().unwrap_or_default(), printable(&failure.message)));
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(Code::Failed, format!("{failed} of {} nodes were not enrolled", orders.len())))
}

fn one(output: &Output, row: &Row, now: Timestamp) -> String {
    let state = output.paint(style(&row.state), &printable(&row.state));
    let mut text = format!("{}  {} {state}\n", output.paint(Style::Bold, &printable(&row.name)), printable(&row.kind));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<14}{}\n", printable(&value)));
    line("enrolled", format!("{} ago by {}", age(row.enrolled_at, now), row.enrolled_by));
    if let Some(at) = row.join_expires_at {
        line("join token", format!("not used yet, good until {at}"));
    }
    if let Some(node) = &row.node {
        line("node", format!("{node}, version {}", row.version.as_deref().unwrap_or("unknown")));
    }
    if let Some(address) = &row.address {
        let since = row.connected_since.map(|since| format!(" for {}", age(since, now))).unwrap_or_default();
        let proof = row.proof.as_ref().map(|proof| format!(", by {proof}")).unwrap_or_default();
        line("from", format!("{address}{since}{proof}"));
    }
    if let Some(node) = &row.connected_to {
        line("connected to", node.clone());
    }
    if let Some(at) = row.last_heard_at {
        line("heard", format!("{} ago", age(at, now)));
    }
    if let Some(at) = row.silent_since {
        line("silent", format!("for {}; its alarms are stale", age(at, now)));
    }
    if let Some(to) = row.moved.as_ref().and_then(|moved| moved["to"].as_str()) {
        let may_return = row.moved.as_ref().is_some_and(|moved| moved["may_return"] == true);
        line("moved", format!("to {to}{}", if may_return { "; it may come back" } else { "" }));
    }
    if row.connected_since.is_some() {
        line("lag", millis(row.lag_ms.map(|ms| ms as f64)));
        line("clock", format!("{} ahead, round trip {}", millis(row.clock_offset_ms), millis(row.round_trip_ms)));
        line("received", format!("{} items in {} bytes", row.received_items, row.received_bytes));
        line("sent", format!("{} bytes", row.sent_bytes));
    }
    if row.missing > 0 {
        line("missing", format!("{} records of its journal are yet to come", row.missing));
    }
    if row.pending > 0 {
        line("pending", format!("{} actions are on their way", row.pending));
    }
    if row.alarms.is_some() {
        line("alarms", alarms(row));
    }
    for below in &row.below {
        let silent = if below["silent_since"].is_string() { ", silent" } else { "" };
        let word = |key: &str| below[key].as_str().unwrap_or_default().to_owned();
        line("below", format!("{} ({}{silent})", word("name"), word("kind")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_enrols_a_node_a_line_and_a_mistake_is_named() {
        let text = "name,kind,approve\ncell-1\n\n# the north\ncell-2, region ,true\n\"cell-3\",,false\n";
        let expected = json!([{"name": "cell-1"}, {"name": "cell-2", "kind": "region", "approve": true}, {"name": "cell-3", "approve": false}]);
        assert_eq!(orders(text).map(Value::from), Ok(expected));
        assert_eq!(orders("a\nb,tower").expect_err("is wrong"), "2: kind: \"tower\" is none of site, region, agent");
        assert!(orders("a b").expect_err("is wrong").starts_with("1: name: has the character ' '"));
        assert_eq!(orders("a,site,maybe").expect_err("is wrong"), "1: approve: \"maybe\" is neither true nor false");
        assert!(orders("a,site,true,x").is_err());
    }
}

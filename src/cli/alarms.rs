//! `klaxon alarms`: the list, and the commands under it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use klaxon_schemas::action::ShelfOrder;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Shelf, Suppression};
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::Alarm;
use serde_json::Value;

use super::actions::{self, ActionArgs};
use super::client::{Client, Query};
use super::failure::{Code, Failure, Outcome};
use super::filter::Filter;
use super::output::{Output, Style, remark};
use super::table::{Cell, Column, Table};
use super::time::{age, local_and_age, now};
use super::{Whom, find, show, store, wait, watch};

/// How many digits of an id a table shows; the API takes any prefix that is unique.
pub(super) const ID_DIGITS: usize = 8;
/// The most alarms on one page of the API.
const PAGE_LIMIT: usize = 10_000;

/// Without a subcommand: the list.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AlarmsArgs {
    #[command(flatten)]
    list: ListArgs,
    #[command(subcommand)]
    command: Option<AlarmsCommand>,
}

#[derive(Debug, Subcommand)]
enum AlarmsCommand {
    /// List alarms
    List(ListArgs),
    /// Show one alarm, its catalogue entry and its history
    Show {
        /// The alarm's id, or its first digits (at least 4)
        id: String,
    },
    /// Follow what changes, until interrupted
    Watch(watch::WatchArgs),
    /// Count what is not cleared
    Summary,
    /// List the shelves that stand
    Shelves,
    /// List the types that are suppressed
    Suppressions,
    #[command(flatten)]
    Action(ActionArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// What to sort by
    #[arg(long, value_enum, help_heading = "How")]
    sort: Option<Sort>,
    /// Which way
    #[arg(long, value_enum, help_heading = "How")]
    order: Option<Order>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "How")]
    limit: u32,
    /// All, however many
    #[arg(long, conflicts_with = "limit", help_heading = "How")]
    all: bool,
    /// Go on from where the list before ended
    #[arg(long, help_heading = "How")]
    cursor: Option<String>,
    /// More columns
    #[arg(long, short, help_heading = "How")]
    wide: bool,
    /// Read the store of a node that will not start; changes nothing
    #[arg(long, value_name = "DIR", conflicts_with = "cursor", help_heading = "How")]
    offline: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    Severity,
    #[value(name = "raised_at", alias = "raised-at")]
    RaisedAt,
    #[value(name = "changed_at", alias = "changed-at")]
    ChangedAt,
    Resource,
    #[value(name = "alarm_type", aliases = ["type", "alarm-type"])]
    AlarmType,
    Site,
    Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Order {
    Asc,
    Desc,
}

impl Sort {
    fn as_str(self) -> &'static str {
        match self {
            Self::Severity => "severity",
            Self::RaisedAt => "raised_at",
            Self::ChangedAt => "changed_at",
            Self::Resource => "resource",
            Self::AlarmType => "alarm_type",
            Self::Site => "site",
            Self::Count => "count",
        }
    }
}

impl Order {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}

pub(super) fn alarms(output: &Output, node: &Whom, args: AlarmsArgs) -> Outcome {
    match args.command.unwrap_or(AlarmsCommand::List(args.list)) {
        AlarmsCommand::List(ListArgs { offline: Some(dir), filter, sort, order, limit, all, wide, .. }) => {
            let limit = if all { usize::MAX } else { limit as usize };
            let alarms = store::alarms(&dir, &filter, (sort, order), limit)?;
            if output.json {
                return Ok(output.json(&serde_json::json!({ "alarms": alarms }))?);
            }
            table(output, &alarms, wide)
        }
        AlarmsCommand::List(args) => wait(async { list(output, &find(node).await?, &args).await }),
        AlarmsCommand::Show { id } => wait(async { show::show(output, &find(node).await?, &id).await }),
        AlarmsCommand::Watch(args) => wait(async { watch::watch(output, &find(node).await?, &args).await }),
        AlarmsCommand::Summary => wait(async { summary(output, &find(node).await?).await }),
        AlarmsCommand::Shelves => wait(async { shelves(output, &find(node).await?).await }),
        AlarmsCommand::Suppressions => wait(async { suppressions(output, &find(node).await?).await }),
        AlarmsCommand::Action(action) => wait(async { actions::act(output, &find(node).await?, action).await }),
    }
}

async fn list(output: &Output, client: &Client, args: &ListArgs) -> Outcome {
    let mut query = args.filter.query();
    query.add("sort", args.sort.map(Sort::as_str));
    query.add("order", args.order.map(Order::as_str));
    query.add("limit", Some(if args.all { PAGE_LIMIT } else { args.limit as usize }));
    let mut page = pages(client, "/alarms", "alarms", &query, args.cursor.as_deref(), args.all).await?;
    if output.json {
        return Ok(output.json(&page)?);
    }
    let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
    let alarms: Vec<Alarm> = read(page["alarms"].take())?;
    table(output, &alarms, args.wide)?;
    if let Some(next) = next {
        remark(&format!("There are more: --all shows them, --cursor {next} the next {}.", args.limit));
    }
    Ok(())
}

/// A list of the API as one answer: with `all` to its end, else its first page that is not empty.
pub(super) async fn pages(
    client: &Client,
    path: &str,
    key: &str,
    query: &Query,
    cursor: Option<&str>,
    all: bool,
) -> Outcome<Value> {
    let on = |cursor: Option<&str>| {
        let mut query = query.clone();
        query.add("cursor", cursor);
        query
    };
    let mut first = client.get(path, &on(cursor)).await?;
    let empty = |answer: &Value| answer[key].as_array().is_some_and(Vec::is_empty);
    while (all || empty(&first))
        && let Some(next) = first["next"].as_str().map(str::to_owned)
    {
        let mut page = client.get(path, &on(Some(&next))).await?;
        let (Some(items), Some(more)) = (first[key].as_array_mut(), page[key].as_array_mut()) else { break };
        items.append(more);
        first["next"] = page["next"].take();
    }
    if first["next"].is_null()
        && let Some(object) = first.as_object_mut()
    {
        object.remove("next");
    }
    Ok(first)
}

/// Reads what a node sent in a form of the wire.
pub(super) fn read<T: serde::de::DeserializeOwned>(value: Value) -> Outcome<T> {
    serde_json::from_value(value).map_err(|error| {
        Failure::new(Code::Failed, format!("the node's answer is not understood ({error}); is it a newer one?"))
    })
}

/// The list as a table.
pub(super) fn table(output: &Output, alarms: &[Alarm], wide: bool) -> Outcome {
    if alarms.is_empty() {
        remark("No alarms.");
        return Ok(());
    }
    let now = now();
    let sites = wide || alarms.iter().any(|alarm| alarm.site != alarms[0].site || alarm.owner.is_some());
    let mut columns = vec![Column::left("ID"), Column::left("SEVERITY"), Column::right("AGE"), Column::right("COUNT")];
    columns.extend(sites.then_some(Column::left("SITE")));
    columns.extend([Column::text("RESOURCE"), Column::text("TYPE"), Column::text("STATE")]);
    columns.extend(wide.then_some(Column::left("RAISED")));
    columns.extend(wide.then_some(Column::text("ASSIGNED")));
    // Who owns it and through which node it comes, where any is of another site.
    let ways = wide && alarms.iter().any(|alarm| alarm.owner.is_some());
    columns.extend(ways.then_some(Column::text("OWNER")));
    columns.extend(ways.then_some(Column::text("STALE")));
    columns.push(Column::text("TEXT"));
    let mut table = Table::new(&columns);
    for alarm in alarms {
        let severity = if alarm.cleared { Style::Good } else { Style::Severity(alarm.severity) };
        let mut row = vec![
            short(&alarm.id.to_string()).into(),
            Cell::new(severity, alarm.severity.as_str()),
            age(alarm.raised_at, now).into(),
            alarm.count.to_string().into(),
        ];
        row.extend(sites.then(|| (&*alarm.site).into()));
        row.extend([resource(alarm).into(), (&*alarm.alarm_type).into(), Cell::new(Style::Dim, state(alarm))]);
        row.extend(wide.then(|| alarm.raised_at.to_string().into()));
        row.extend(wide.then(|| alarm.assigned.as_ref().map_or("", |assigned| &assigned.to).into()));
        row.extend(ways.then(|| owner(alarm).unwrap_or_default().into()));
        row.extend(ways.then(|| unheard(alarm, now).unwrap_or_default().into()));
        row.push(alarm.text.as_deref().unwrap_or_default().into());
        table.row(row);
    }
    Ok(output.text(&table.render(output))?)
}

/// The first digits of an id.
pub(super) fn short(id: &str) -> &str {
    id.get(..ID_DIGITS).unwrap_or(id)
}

/// What the alarm is about, with its qualifier.
pub(super) fn resource(alarm: &Alarm) -> String {
    match &alarm.qualifier {
        Some(qualifier) => format!("{} [{qualifier}]", alarm.resource),
        None => alarm.resource.to_string(),
    }
}

/// The axes other than the severity, where something is to be said of them.
pub(super) fn state(alarm: &Alarm) -> String {
    let words = [
        (alarm.cleared, "cleared"),
        (alarm.acknowledged.is_some(), "acked"),
        (alarm.assigned.is_some(), "assigned"),
        (alarm.shelved.is_some(), "shelved"),
        (alarm.suppressed, "suppressed"),
        (alarm.stale.is_some(), "stale"),
        (!alarm.pending.is_empty(), "pending"),
    ];
    words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect::<Vec<_>>().join(",")
}

/// Whose a mirrored alarm is, and by which way it comes.
pub(super) fn owner(alarm: &Alarm) -> Option<String> {
    let owner = alarm.owner.as_ref()?;
    let way = alarm.via.as_ref().filter(|via| via.as_str() != &**owner);
    Some(way.map_or_else(|| owner.to_string(), |way| format!("{owner} by way of {way}")))
}

/// Who is not heard from, and since when, if an alarm is stale.
pub(super) fn unheard(alarm: &Alarm, now: Timestamp) -> Option<String> {
    let since = local_and_age(alarm.stale.as_ref()?.since, now);
    let who = alarm.silent.as_ref().map_or("its reporter", |silent| silent.as_str());
    Some(format!("{who} is not heard from since {since}"))
}

async fn summary(output: &Output, client: &Client) -> Outcome {
    let summary = client.get("/alarms/summary", &Query::default()).await?;
    if output.json {
        return Ok(output.json(&summary)?);
    }
    let number = |key: &str| summary[key].as_u64().unwrap_or(0);
    let status = summary["status"].as_str().unwrap_or("unknown");
    let mut lines = vec![format!("{status}: {} active, {} cleared and not yet purged", number("active"), number("cleared"))];
    for severity in Severity::ALL.into_iter().rev() {
        let count = summary["by_severity"][severity.as_str()].as_u64().unwrap_or(0);
        let style = if count == 0 { Style::Dim } else { Style::Severity(severity) };
        lines.push(format!("{count:>8}  {}", output.paint(style, severity.as_str())));
    }
    let rest = ["acknowledged", "shelved", "suppressed", "stale"].map(|key| format!("{} {key}", number(key)));
    lines.push(format!("of these {}", rest.join(", ")));
    Ok(output.text(&lines.join("\n"))?)
}

async fn shelves(output: &Output, client: &Client) -> Outcome {
    let mut answer = client.get("/shelves", &Query::default()).await?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let shelves: Vec<Shelf> = read(answer["shelves"].take())?;
    let mut table = Table::new(&[
        Column::left("SHELF"),
        Column::text("MATCH"),
        Column::left("UNTIL"),
        Column::left("BY"),
        Column::text("REASON"),
    ]);
    let now = now();
    for Shelf { id, by, order: ShelfOrder { matcher, until, reason, starts_at, .. }, begins_at, .. } in &shelves {
        let parts = [
            matcher.site.as_ref().map(|site| format!("site {site}")),
            matcher.resource.as_ref().map(|resource| format!("resource {resource}")),
            matcher.alarm_type.as_ref().map(|alarm_type| format!("type {alarm_type}")),
            matcher.asked_qualifier().map(|qualifier| format!("qualifier {qualifier}")),
        ];
        let labels = matcher.labels.iter().map(ToString::to_string);
        let begins = starts_at.filter(|_| begins_at.is_some()).map(|at| format!("from {} on", local_and_age(at, now)));
        let what = parts.into_iter().flatten().chain(labels).chain(begins).collect::<Vec<_>>().join(", ");
        // The whole id: there is no other way to name a shelf.
        table.row(vec![
            id.to_string().into(),
            what.into(),
            local_and_age(*until, now).into(),
            (&**by).into(),
            (&**reason).into(),
        ]);
    }
    rows(output, &table, "No shelves.")
}

async fn suppressions(output: &Output, client: &Client) -> Outcome {
    #[derive(serde::Deserialize)]
    struct Row {
        alarm_type: String,
        #[serde(flatten)]
        suppression: Suppression,
    }
    let mut answer = client.get("/suppressions", &Query::default()).await?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let suppressions: Vec<Row> = read(answer["suppressions"].take())?;
    let mut table = Table::new(&[Column::left("TYPE"), Column::left("SINCE"), Column::left("BY"), Column::text("REASON")]);
    let now: Timestamp = now();
    for Row { alarm_type, suppression: Suppression { by, at, reason } } in &suppressions {
        let reason = reason.as_deref().unwrap_or_default();
        table.row(vec![alarm_type.into(), local_and_age(*at, now).into(), (&**by).into(), reason.into()]);
    }
    rows(output, &table, "No type is suppressed.")
}

/// The table, or the remark if it has no rows.
pub(super) fn rows(output: &Output, table: &Table, nothing: &str) -> Outcome {
    if table.is_empty() {
        remark(nothing);
        return Ok(());
    }
    Ok(output.text(&table.render(output))?)
}

//! `klaxon history`: what changed, newest first.

use clap::Args;
use klaxon_schemas::change::ChangeKind;
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::wire::v1::{Change, ChangeSubject, PerceivedSeverity};
use serde_json::Value;

use super::alarms::{Order, pages, read, resource, rows, short};
use super::client::{Client, Query, percent};
use super::failure::Outcome;
use super::output::{Output, Style, remark};
use super::table::{Cell, Column, Table};
use super::time::{Moment, local};

/// The length of a UUID as text.
const UUID_LENGTH: usize = 36;

/// Which changes.
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// Of this alarm: its id
    #[arg(long, value_name = "ID")]
    alarm: Option<String>,
    /// Of this site
    #[arg(long)]
    site: Option<Site>,
    /// On this resource, or on what it contains
    #[arg(long)]
    resource: Option<Resource>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    alarm_type: Option<AlarmType>,
    /// Of this kind: raised, cleared, acknowledged, logged …; may be given several times
    #[arg(long, value_parser = parse_kind)]
    kind: Vec<ChangeKind>,
    /// At least this urgent
    #[arg(long, value_name = "SEVERITY")]
    min_severity: Option<Severity>,
    /// With this in the text, resource, type or note, in whatever case
    #[arg(long)]
    text: Option<String>,
    /// Not before this: a time, or how long ago (2h)
    #[arg(long, value_name = "WHEN")]
    from: Option<Moment>,
    /// Before this
    #[arg(long, value_name = "WHEN")]
    until: Option<Moment>,
    /// Which way
    #[arg(long, value_enum)]
    order: Option<Order>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// All, however many
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on from where the history before ended
    #[arg(long)]
    cursor: Option<String>,
}

fn parse_kind(word: &str) -> Result<ChangeKind, String> {
    serde_json::from_value(Value::String(word.to_owned())).map_err(|_| {
        format!("{word:?} is no kind of change; there are raised, updated, severity-changed, cleared, acknowledged, unacknowledged, \
                 assigned, noted, shelved, unshelved, staled, refreshed, retired, purged, logged, late, shelf-added, shelf-removed, \
                 suppressed, unsuppressed, refused, quarantined")
    })
}

/// The word for a kind.
pub(super) fn kind(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Raised => "raised",
        ChangeKind::Updated => "updated",
        ChangeKind::SeverityChanged => "severity changed",
        ChangeKind::Cleared => "cleared",
        ChangeKind::Acknowledged => "acknowledged",
        ChangeKind::Unacknowledged => "unacknowledged",
        ChangeKind::Assigned => "assigned",
        ChangeKind::Noted => "noted",
        ChangeKind::Shelved => "shelved",
        ChangeKind::Unshelved => "unshelved",
        ChangeKind::Staled => "stale",
        ChangeKind::Refreshed => "heard again",
        ChangeKind::Retired => "retired",
        ChangeKind::Purged => "purged",
        ChangeKind::Logged => "logged",
        ChangeKind::Late => "late",
        ChangeKind::ShelfAdded => "shelf added",
        ChangeKind::ShelfRemoved => "shelf removed",
        ChangeKind::Suppressed => "suppressed",
        ChangeKind::Unsuppressed => "unsuppressed",
        ChangeKind::Refused => "refused",
        ChangeKind::Quarantined => "quarantined",
        ChangeKind::Realigned => "realigned",
        ChangeKind::Pending => "pending",
        ChangeKind::Child => "site",
        ChangeKind::TokenCreated => "token made",
        ChangeKind::TokenRevoked => "token revoked",
    }
}

/// What happened, and whether it was known already what it led to when it came.
pub(super) fn happened(change: &Change) -> String {
    let kind = kind(change.kind);
    if change.past { format!("{kind} (past)") } else { kind.to_owned() }
}

pub(super) async fn history(output: &Output, client: &Client, args: &HistoryArgs) -> Outcome {
    let mut query = Query::default();
    query.add(
        "alarm",
        match &args.alarm {
            Some(id) => Some(whole_id(client, id).await?),
            None => None,
        },
    );
    query.add("site", args.site.as_ref());
    query.add("resource", args.resource.as_ref());
    query.add("alarm_type", args.alarm_type.as_ref());
    for kind in &args.kind {
        let word = serde_json::to_value(kind).unwrap_or_default();
        query.add("kind", word.as_str());
    }
    query.add("min_severity", args.min_severity);
    query.add("text", args.text.as_ref());
    query.add("from", args.from.map(Moment::past));
    query.add("until", args.until.map(Moment::past));
    query.add("order", args.order.map(Order::as_str));
    query.add("limit", Some(if args.all { 1000 } else { args.limit }));
    let mut page = pages(client, "/history", "changes", &query, args.cursor.as_deref(), args.all).await?;
    if output.json {
        return Ok(output.json(&page)?);
    }
    let next = page.get("next").map(|next| next.as_str().map_or_else(|| next.to_string(), str::to_owned));
    let changes: Vec<Change> = read(page["changes"].take())?;
    rows(output, &table(&changes, true), "Nothing changed.")?;
    if let Some(next) = next {
        remark(&format!("There is more: --all shows it, --cursor {next} the next {}.", args.limit));
    }
    Ok(())
}

/// The whole id of an alarm, of whose first digits it may be. One that is forgotten has its history under its whole id only.
async fn whole_id(client: &Client, id: &str) -> Outcome<String> {
    if id.len() == UUID_LENGTH {
        return Ok(id.to_owned());
    }
    let answer = client.get(&format!("/alarms/{}", percent(id)), &Query::default()).await?;
    Ok(answer["alarm"]["id"].as_str().unwrap_or(id).to_owned())
}

/// Changes as a table; without what they happened to where that is known.
pub(super) fn table(changes: &[Change], subject: bool) -> Table {
    let mut columns = vec![Column::left("TIME"), Column::left("CHANGE"), Column::left("SEVERITY")];
    if subject {
        columns.extend([Column::left("ID"), Column::text("RESOURCE"), Column::text("TYPE")]);
    }
    columns.extend([Column::left("BY"), Column::text("TEXT")]);
    let mut table = Table::new(&columns);
    for change in changes {
        let told = Told::of(change);
        let mut row: Vec<Cell> = vec![local(change.at).into(), happened(change).into(), told.severity];
        if subject {
            row.extend([told.id.into(), told.resource.into(), told.alarm_type.into()]);
        }
        row.extend([change.actor.as_deref().unwrap_or_default().into(), told.text.into()]);
        table.row(row);
    }
    table
}

/// What a change says, column by column.
pub(super) struct Told {
    pub(super) severity: Cell,
    pub(super) id: String,
    pub(super) resource: String,
    pub(super) alarm_type: String,
    pub(super) text: String,
}

impl Told {
    pub(super) fn of(change: &Change) -> Self {
        let note = change.note.as_deref().unwrap_or_default();
        let nothing = || Self {
            severity: "".into(),
            id: String::new(),
            resource: String::new(),
            alarm_type: String::new(),
            text: note.to_owned(),
        };
        match &change.subject {
            ChangeSubject::Alarm { alarm, previous_severity } => {
                let severity = match previous_severity {
                    Some(before) => format!("{before} → {}", alarm.severity),
                    None => alarm.severity.to_string(),
                };
                let style = if change.kind == ChangeKind::Cleared { Style::Good } else { Style::Severity(alarm.severity) };
                let text = match (change.kind, &alarm.shelved, &alarm.assigned) {
                    _ if !note.is_empty() => note.to_owned(),
                    (ChangeKind::Shelved, Some(shelved), _) => format!("until {}: {}", local(shelved.until), shelved.reason),
                    (ChangeKind::Assigned, _, Some(assigned)) => format!("to {}", assigned.to),
                    (ChangeKind::Assigned, _, None) => "to nobody".to_owned(),
                    (ChangeKind::Pending, ..) => {
                        alarm.via.as_ref().map_or_else(String::new, |via| format!("on its way to {via}"))
                    }
                    _ => alarm.text.as_deref().unwrap_or_default().to_owned(),
                };
                Self {
                    severity: Cell::new(style, severity),
                    id: short(&alarm.id.to_string()).to_owned(),
                    resource: resource(alarm),
                    alarm_type: alarm.alarm_type.to_string(),
                    text,
                }
            }
            ChangeSubject::Event { event, without_effect, .. } => Self {
                severity: event.severity.map(perceived).unwrap_or_default().into(),
                resource: event.resource.to_string(),
                alarm_type: event.alarm_type.to_string(),
                text: match without_effect {
                    Some(why) => format!("without effect: {}", without(*why)),
                    None => event.text.as_deref().unwrap_or_default().to_owned(),
                },
                ..nothing()
            },
            ChangeSubject::Shelf { shelf } => Self {
                id: short(&shelf.id.to_string()).to_owned(),
                resource: shelf.order.matcher.resource.as_ref().map(ToString::to_string).unwrap_or_default(),
                alarm_type: shelf.order.matcher.alarm_type.as_ref().map(ToString::to_string).unwrap_or_default(),
                text: format!("until {}: {}", local(shelf.order.until), shelf.order.reason),
                ..nothing()
            },
            ChangeSubject::Suppression { alarm_type, suppression } => Self {
                alarm_type: alarm_type.to_string(),
                text: suppression.reason.as_deref().unwrap_or_default().to_owned(),
                ..nothing()
            },
            ChangeSubject::Refusal { refusal } => Self {
                id: refusal.alarm.map(|id| short(&id.to_string()).to_owned()).unwrap_or_default(),
                text: refusal.reason.as_str().to_owned(),
                ..nothing()
            },
            ChangeSubject::Token { token } => {
                let sites = token.sites.iter().map(|site| format!(" at {site}")).collect::<String>();
                Self { text: format!("{}: {}{sites}", token.name, token.role), ..nothing() }
            }
            ChangeSubject::Child { child } => Self { text: format!("{}: {}", child.name, child.what), ..nothing() },
            ChangeSubject::Quarantine { entry, failure } => Self { text: format!("entry {entry}: {failure}"), ..nothing() },
        }
    }
}

fn perceived(severity: PerceivedSeverity) -> &'static str {
    match severity {
        PerceivedSeverity::Cleared => "cleared",
        PerceivedSeverity::Indeterminate => "indeterminate",
        PerceivedSeverity::Warning => "warning",
        PerceivedSeverity::Minor => "minor",
        PerceivedSeverity::Major => "major",
        PerceivedSeverity::Critical => "critical",
    }
}

fn without(why: klaxon_schemas::change::WithoutEffect) -> &'static str {
    use klaxon_schemas::change::WithoutEffect;
    match why {
        WithoutEffect::Overtaken => "a newer report came before it",
        WithoutEffect::TooOld => "its number is too old",
        WithoutEffect::NeverClears => "reports of this type cannot be cleared",
        WithoutEffect::AlarmLimit => "as many alarms are active as there may be",
        WithoutEffect::HeartbeatLimit => "as many have promised to be heard from as may",
        WithoutEffect::NothingToClear => "there is nothing to clear",
    }
}

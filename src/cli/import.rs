//! `klaxon import fm`: takes over from a running StarlingX Fault Management, by its REST interface.
//!
//! Which types are suppressed comes first, so that nobody is told of what was hidden; then history, oldest first, as log events; then what
//! is active, as alarms. What comes again is known by its uuid.
//!
//! That interface gives no more than 2000 alarms, and fails when asked for the next page. Where it does, what is wanted is asked for in
//! parts: alarms of one type, then of one severity; history before the oldest line that came.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use klaxon_schemas::event::{Attributes, SpanRule};
use klaxon_schemas::labels::Labels;
use klaxon_schemas::names::{AlarmType, AttributeName, AttributeValue, EventId, Producer, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::starlingx::{
    ENTITY_TYPE, SUPPRESSION, event_type_from_word, named, probable_cause_from_word, severity_from_word, time_of, time_text,
};
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::{self, EventKind, PerceivedSeverity};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, Pass, percent};
use super::event::{BATCH_EVENTS_MAX, Tally};
use super::failure::{Code, Failure, Outcome};
use super::output::{Output, remark};
use super::{Whom, find};
use crate::uplink::Token;
use klaxon_api::trust::ClientTls;

/// How much is asked for at once; that interface gives no more.
const PAGE_MAX: usize = 2000;
/// The most lines of history that are taken over: the newest.
const HISTORY_MAX: usize = 100_000;
/// Who reports what is taken over.
const PRODUCER: &str = "fm-import";
/// The attribute for what a line of their history says of an alarm.
const STATE: &str = "starlingx.state";

/// From where.
#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// Active alarms, history and suppressed types of a StarlingX Fault Management
    #[command(after_help = "\
Example:
  klaxon import fm --url http://controller:18002 --fm-token-file ~/token --dry-run
Set receivers up afterwards, or they are told of everything that is taken over.")]
    Fm(FmArgs),
}

/// A running Fault Management.
#[derive(Debug, Args)]
pub(super) struct FmArgs {
    /// Where its REST interface is: https://HOST:PORT or http://HOST:PORT
    #[arg(long)]
    url: String,
    /// The file with a token of its Keystone; OS_AUTH_TOKEN may hold the token itself
    #[arg(long, value_name = "FILE")]
    fm_token_file: Option<PathBuf>,
    /// The certificates (PEM) of who vouches for it at https://; the system's, if absent
    #[arg(long, value_name = "FILE")]
    fm_ca_file: Option<PathBuf>,
    /// Leave history where it is
    #[arg(long)]
    no_history: bool,
    /// Read everything, and bring nothing in
    #[arg(long)]
    dry_run: bool,
}

/// Carries the command out.
pub(super) async fn fm(output: &Output, whom: &Whom, args: &FmArgs) -> Outcome {
    let token = match &args.fm_token_file {
        Some(path) => Some(Token::in_file(path).map_err(|error| Failure::new(Code::Usage, error))?),
        None => std::env::var("OS_AUTH_TOKEN").ok().filter(|token| !token.is_empty()).map(Token),
    };
    let tls = ClientTls { authorities: args.fm_ca_file.clone(), client: None };
    let url = args.url.trim_end_matches('/').trim_end_matches("/v1");
    let fm = Fm(Client::find(Some(url), Pass { token, is_openstack: true, tls }).await?);
    let node = find(whom).await?;

    let types = fm.types().await?;
    let mut drafts = Drafts::default();
    if !args.no_history {
        for row in fm.history(&mut drafts.remarks).await? {
            drafts.take(&row, row.event(true));
        }
    }
    let history = drafts.lines.len();
    for row in fm.alarms(&types, &mut drafts.remarks).await? {
        drafts.take(&row, row.event(false));
    }
    let Drafts { lines, unusable, remarks } = drafts;
    remarks.iter().for_each(|said| remark(&format!("klaxon: {said}")));
    let suppressed: Vec<&TypeRow> = types.iter().filter(|row| row.suppression_status == "suppressed").collect();
    let alarms = lines.len() - history;
    if args.dry_run {
        let counts =
            json!({ "alarms": alarms, "history": history, "suppressed_types": suppressed.len(), "unusable": unusable });
        return if output.json {
            Ok(output.json(&counts)?)
        } else {
            Ok(output.line(&format!(
                "{alarms} active alarms, {history} lines of history and {} suppressed types would come in; {unusable} cannot",
                suppressed.len()
            ))?)
        };
    }
    for row in &suppressed {
        let order =
            json!({ "action": "suppress", "alarm_type": row.alarm_id, "reason": "suppressed in StarlingX's Fault Management" });
        let answer = node.post("/actions", &order).await?;
        // Another time it is so already.
        if answer.body["refusals"][0]["reason"] != "no-effect" {
            answer.good()?;
        }
    }
    let mut tally = Tally::brief();
    for batch in lines.chunks(BATCH_EVENTS_MAX) {
        tally.send(output, &node, batch, false).await?;
    }
    if !output.json {
        output.line(&format!(
            "{alarms} active alarms, {history} lines of history and {} suppressed types were read; {unusable} of them cannot be used",
            suppressed.len()
        ))?;
    }
    tally.close(output)
}

/// What comes in, oldest first, and what was wrong on the way.
#[derive(Default)]
struct Drafts {
    lines: Vec<String>,
    unusable: usize,
    remarks: Vec<String>,
}

impl Drafts {
    fn take(&mut self, row: &Row, event: Result<v1::Event, String>) {
        let line = event.and_then(|event| serde_json::to_string(&event).map_err(|error| error.to_string()));
        match line {
            Ok(line) => self.lines.push(line),
            Err(reason) => {
                self.unusable += 1;
                self.remarks.push(format!("{} of {:?} cannot be used: {reason}", row.id(), row.entity_instance_id));
            }
        }
    }
}

/// An alarm, or a line of history.
#[derive(Debug, Deserialize)]
struct Row {
    uuid: Uuid,
    #[serde(default)]
    alarm_id: String,
    #[serde(default)]
    event_log_id: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    entity_type_id: Option<String>,
    entity_instance_id: String,
    timestamp: String,
    #[serde(default)]
    severity: String,
    #[serde(default)]
    reason_text: Option<String>,
    #[serde(default)]
    alarm_type: Option<String>,
    #[serde(default)]
    event_log_type: Option<String>,
    #[serde(default)]
    probable_cause: Option<String>,
    #[serde(default)]
    proposed_repair_action: Option<String>,
    #[serde(default)]
    service_affecting: Option<bool>,
    #[serde(default)]
    suppression: Option<bool>,
}

impl Row {
    fn id(&self) -> &str {
        if self.alarm_id.is_empty() { &self.event_log_id } else { &self.alarm_id }
    }

    fn time(&self) -> Result<Timestamp, String> {
        time_of(&self.timestamp).ok_or_else(|| format!("timestamp: {:?} is no time", self.timestamp))
    }

    fn event(&self, is_history: bool) -> Result<v1::Event, String> {
        let severity = severity_from_word(&self.severity);
        let severity = match severity {
            Some(severity) if severity > Severity::Indeterminate => Some(severity),
            // The end of an alarm has none.
            _ if is_history => None,
            _ => return Err(format!("severity: {:?} is none", self.severity)),
        };
        let mut attributes = std::collections::BTreeMap::new();
        let mut keep = |name: &str, value: &str| {
            let name = AttributeName::new(name).map_err(|error| error.to_string())?;
            attributes.insert(name, AttributeValue::lossy(value).map_err(|error| error.to_string())?);
            Ok::<_, String>(())
        };
        if let Some(kind) = &self.entity_type_id {
            keep(ENTITY_TYPE, kind)?;
        }
        if self.suppression == Some(false) {
            keep(SUPPRESSION, "false")?;
        }
        if is_history {
            keep(STATE, &self.state)?;
        }
        let text = |words: &Option<String>| words.as_deref().map(Text::lossy).transpose().map_err(|error| error.to_string());
        let kind = self.alarm_type.as_deref().or(self.event_log_type.as_deref());
        Ok(v1::Event {
            site: None,
            resource: Resource::new(named(&self.entity_instance_id)).map_err(|error| format!("entity_instance_id: {error}"))?,
            alarm_type: AlarmType::new(self.id()).map_err(|error| format!("alarm_id: {error}"))?,
            qualifier: None,
            kind: if is_history { EventKind::Log } else { EventKind::Alarm },
            severity: severity.map(PerceivedSeverity::from),
            text: text(&self.reason_text)?,
            event_time: Some(self.time()?),
            event_type: kind.and_then(event_type_from_word),
            probable_cause: self.probable_cause.as_deref().and_then(probable_cause_from_word),
            repair_action: text(&self.proposed_repair_action)?.filter(|words| !words.is_empty()),
            service_affecting: self.service_affecting,
            attributes: Attributes::new(attributes).map_err(|error| error.to_string())?,
            labels: Labels::default(),
            producer: Some(Producer::new(PRODUCER).map_err(|error| error.to_string())?),
            epoch: None,
            seq: None,
            event_id: Some(EventId::new(&self.uuid.to_string()).map_err(|error| error.to_string())?),
            lease_s: None,
            ends_at: None,
            span: SpanRule::default(),
            order_by_event_time: false,
            relay: None,
        })
    }
}

/// A type of alarms.
#[derive(Debug, Deserialize)]
struct TypeRow {
    alarm_id: String,
    suppression_status: String,
}

/// A page of a list.
struct Page {
    rows: Vec<Row>,
    next: Option<String>,
}

/// All that a list gave, and whether there is more that it did not give.
struct Found {
    rows: Vec<Row>,
    is_all: bool,
}

/// The Fault Management.
struct Fm(Client);

impl Fm {
    async fn get(&self, path: &str) -> Outcome<Value> {
        let answer = self.0.get_at(path).await?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let code = if answer.status.is_server_error() { Code::Later } else { Code::Failed };
        // An error is JSON as a text within JSON.
        let inner = answer.body["error_message"].as_str().unwrap_or_default();
        let inner: Value = serde_json::from_str(inner).unwrap_or_else(|_| Value::from(inner));
        let said = inner["faultstring"].as_str().or(inner.as_str()).unwrap_or_default();
        Err(Failure::new(code, format!("{} answers {} to {path}: {said}", self.0.endpoint(), answer.status)))
    }

    async fn types(&self) -> Outcome<Vec<TypeRow>> {
        let mut body = self.get("/v1/event_suppression").await?;
        understood("event_suppression", body["event_suppression"].take())
    }

    async fn page(&self, list: &str, path: &str) -> Outcome<Page> {
        let mut body = self.get(path).await?;
        // Links name the server as it knows itself; it is asked where it was reached.
        let query = body["next"].as_str().and_then(|next| next.split_once('?'));
        let next = query.map(|(_, query)| format!("/v1/{list}?{query}"));
        Ok(Page { rows: understood(list, body[list].take())?, next })
    }

    /// What a list gives if its pages are followed as far as they can be.
    async fn follow(&self, list: &str, query: &str) -> Outcome<Found> {
        let mut page = self.page(list, &format!("/v1/{list}?{query}&limit={PAGE_MAX}")).await?;
        let (mut rows, mut seen) = (Vec::new(), HashSet::new());
        loop {
            let before = seen.len();
            rows.extend(page.rows.into_iter().filter(|row| seen.insert(row.uuid)));
            let Some(next) = page.next else { return Ok(Found { rows, is_all: true }) };
            if seen.len() == before || rows.len() >= HISTORY_MAX {
                return Ok(Found { rows, is_all: false });
            }
            page = match self.page(list, &next).await {
                Ok(page) => page,
                // Theirs fails at the second page.
                Err(failure) if failure.code == Code::Later => return Ok(Found { rows, is_all: false }),
                Err(failure) => return Err(failure),
            };
        }
    }

    /// All active alarms, those of suppressed types too.
    async fn alarms(&self, types: &[TypeRow], remarks: &mut Vec<String>) -> Outcome<Vec<Row>> {
        const ALL: &str = "expand=True&include_suppress=True";
        let Found { rows: mut all, is_all } = self.follow("alarms", ALL).await?;
        if is_all {
            return Ok(all);
        }
        let mut seen: HashSet<Uuid> = all.iter().map(|row| row.uuid).collect();
        let ids: HashSet<String> =
            types.iter().map(|row| row.alarm_id.clone()).chain(all.iter().map(|row| row.alarm_id.clone())).collect();
        for id in ids {
            let of_type = format!("{}&{ALL}", condition(&[("alarm_id", &id)]));
            let mut found = self.follow("alarms", &of_type).await?;
            if !found.is_all {
                for severity in ["critical", "major", "minor", "warning"] {
                    let of_both = format!("{}&{ALL}", condition(&[("alarm_id", &id), ("severity", severity)]));
                    let part = self.follow("alarms", &of_both).await?;
                    if !part.is_all {
                        remarks.push(format!("there are more {severity} alarms {id} than it gives; {PAGE_MAX} of them came"));
                    }
                    found.rows.extend(part.rows);
                }
            }
            all.extend(found.rows.into_iter().filter(|row| seen.insert(row.uuid)));
        }
        Ok(all)
    }

    /// History, oldest first.
    async fn history(&self, remarks: &mut Vec<String>) -> Outcome<Vec<Row>> {
        const ALL: &str = "expand=True&include_suppress=True";
        let Found { rows: mut all, mut is_all } = self.follow("event_log", ALL).await?;
        let mut seen: HashSet<Uuid> = all.iter().map(|row| row.uuid).collect();
        while !is_all && all.len() < HISTORY_MAX {
            let oldest = all.iter().filter_map(|row| row.time().ok()).min();
            let Some(oldest) = oldest else { break };
            let before = format!("{}&{ALL}", condition(&[("end", &time_text(oldest))]));
            let found = self.follow("event_log", &before).await?;
            let count = all.len();
            all.extend(found.rows.into_iter().filter(|row| seen.insert(row.uuid)));
            is_all = found.is_all;
            if all.len() == count && !is_all {
                remarks.push(format!("there is more history at {} than it gives, and none before came", time_text(oldest)));
                break;
            }
        }
        if all.len() >= HISTORY_MAX {
            remarks.push(format!("of history the newest {HISTORY_MAX} lines are taken"));
            all.truncate(HISTORY_MAX);
        }
        all.reverse();
        all.sort_by(|left, right| left.timestamp.cmp(&right.timestamp));
        Ok(all)
    }
}

/// Conditions as they are asked for there: fields first, then operators, types and values.
fn condition(all: &[(&str, &str)]) -> String {
    let each = |form: &dyn Fn(&(&str, &str)) -> String| all.iter().map(form).collect::<Vec<_>>().join("&");
    let parts = [
        each(&|(field, _)| format!("q.field={field}")),
        each(&|_| "q.op=eq".to_owned()),
        each(&|_| "q.type=".to_owned()),
        each(&|(_, value)| format!("q.value={}", percent(value))),
    ];
    parts.join("&")
}

fn understood<T: serde::de::DeserializeOwned>(list: &str, value: Value) -> Outcome<T> {
    serde_json::from_value(value).map_err(|error| {
        Failure::new(Code::Failed, format!("what is there answers as no Fault Management does ({list}: {error})"))
    })
}

//! `klaxon import fm`: takes over from a running StarlingX Fault Management, by its REST interface.
//!
//! Which types are suppressed comes first, so that nobody is told of what was hidden; then history, oldest first, as log events; then what
//! is active, as alarms. What comes again is known by its uuid.
//!
//! That interface gives no more than 2000 alarms, and fails when asked for the next page. So what is wanted is asked for in parts, until
//! as many came as it counts: alarms of one type, then of one severity; history before the oldest line that came.

use std::collections::{BTreeSet, HashSet};
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
            // The line that tells of a raise has the uuid of its alarm there.
            event_id: Some(
                EventId::new(&format!("{}:{}", if is_history { "log" } else { "alarm" }, self.uuid))
                    .map_err(|error| error.to_string())?,
            ),
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

    /// The first rows of a list. Its links are not followed: they lose what was asked for, and theirs fails at the second page.
    async fn rows(&self, list: &str, conditions: &[(&str, &str)], limit: usize) -> Outcome<Vec<Row>> {
        let conditions = if conditions.is_empty() { String::new() } else { format!("{}&", condition(conditions)) };
        let path = format!("/v1/{list}?{conditions}expand=True&include_suppress=True&limit={limit}");
        understood(list, self.get(&path).await?[list].take())
    }

    /// How many active alarms it has. A list may be short of some without being full: what is masked is taken out of a page behind
    /// its limit.
    async fn count(&self) -> Outcome<u64> {
        let counts = self.get("/v1/alarms/summary?include_suppress=True").await?;
        Ok(["critical", "major", "minor", "warnings"].into_iter().filter_map(|key| counts[key].as_u64()).sum())
    }

    /// All active alarms, those of suppressed types too.
    async fn alarms(&self, types: &[TypeRow], remarks: &mut Vec<String>) -> Outcome<Vec<Row>> {
        let count = self.count().await?;
        let is_all = |all: &Vec<Row>| u64::try_from(all.len()).is_ok_and(|came| came >= count);
        let mut all = self.rows("alarms", &[], PAGE_MAX).await?;
        let mut seen: HashSet<Uuid> = all.iter().map(|row| row.uuid).collect();
        let of_types = types.iter().map(|row| row.alarm_id.clone());
        let ids: BTreeSet<String> = of_types.chain(all.iter().map(|row| row.alarm_id.clone())).collect();
        for severities in [&[""][..], &["critical", "major", "minor", "warning"]] {
            for (id, severity) in ids.iter().flat_map(|id| severities.iter().map(move |severity| (id, *severity))) {
                if is_all(&all) {
                    return Ok(all);
                }
                let both = [("alarm_id", id.as_str()), ("severity", severity)];
                let asked = if severity.is_empty() { &both[..1] } else { &both[..] };
                let found = self.rows("alarms", asked, PAGE_MAX).await?;
                all.extend(found.into_iter().filter(|row| seen.insert(row.uuid)));
            }
        }
        if !is_all(&all) {
            remarks.push(format!("it counts {count} active alarms and gave {} of them, however it was asked", all.len()));
        }
        Ok(all)
    }

    /// History, oldest first.
    async fn history(&self, remarks: &mut Vec<String>) -> Outcome<Vec<Row>> {
        let mut all = self.rows("event_log", &[], PAGE_MAX).await?;
        let mut seen: HashSet<Uuid> = all.iter().map(|row| row.uuid).collect();
        let (mut limit, mut is_all) = (PAGE_MAX, all.len() < PAGE_MAX);
        while !is_all && all.len() < HISTORY_MAX {
            let Some(oldest) = all.iter().filter_map(|row| row.time().ok()).min() else { break };
            let found = self.rows("event_log", &[("end", &time_text(oldest))], limit).await?;
            is_all = found.len() < limit;
            let before = all.len();
            all.extend(found.into_iter().filter(|row| seen.insert(row.uuid)));
            if all.len() > before || is_all {
                continue;
            }
            // So many lines are of one moment.
            limit *= 4;
            if limit > HISTORY_MAX {
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

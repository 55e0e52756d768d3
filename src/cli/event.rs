//! `klaxon event send`: reports one event from flags, or many from a file or standard input.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use klaxon_schemas::event::{Attributes, Lease, SpanRule};
use klaxon_schemas::labels::Labels;
use klaxon_schemas::names::{
    AlarmType, AttributeName, AttributeValue, EventId, ProbableCause, Producer, Qualifier, Site, Text,
};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::EventType;
use klaxon_schemas::wire::v1::{self, EventKind, PerceivedSeverity};
use serde_json::{Value, json};

use super::alarms::short;
use super::client::Client;
use super::failure::{Code, Failure, Outcome};
use super::output::{Output, remark};
use super::time::Moment;

/// How many events are sent at once.
pub(super) const BATCH_EVENTS_MAX: usize = 1000;
/// How many bytes are sent at once, well below what a node takes.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How often a batch is tried while the node says that it will have room later.
const TRIES_MAX: u32 = 10;
const RETRY_WAIT_S_MAX: u64 = 30;

/// What is done with events.
#[derive(Debug, Subcommand)]
pub(super) enum EventCommand {
    /// Report one event by its flags, or those in a file
    #[command(after_help = "\
Examples:
  klaxon event send --resource host=web-1.filesystem=/var --type disk.full --severity major --text '91 % used'
  klaxon event send --resource host=web-1.filesystem=/var --type disk.full --severity cleared
  journal-reader | klaxon event send -")]
    Send(Box<SendArgs>),
}

/// One event, or a file of them.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// A file with one event, a JSON array of them, or one a line; - is standard input
    #[arg(conflicts_with_all = ["resource", "alarm_type", "severity"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    event: EventArgs,
}

#[derive(Debug, Args)]
struct EventArgs {
    /// What it is about: host=web-1.filesystem=/var
    #[arg(long, required_unless_present = "file")]
    resource: Option<Resource>,
    /// Which kind of alarm: disk.full
    #[arg(long = "type", id = "alarm_type", value_name = "TYPE", required_unless_present = "file")]
    alarm_type: Option<AlarmType>,
    /// cleared, indeterminate, warning, minor, major or critical; may be left out with --log
    #[arg(long, value_parser = word::<PerceivedSeverity>, required_unless_present_any = ["file", "log"])]
    severity: Option<PerceivedSeverity>,
    /// What happened, in words
    #[arg(long, short)]
    text: Option<Text>,
    /// The site that owns the alarm [without it: the node's]
    #[arg(long)]
    site: Option<Site>,
    /// Tells alarms of one type on one resource apart
    #[arg(long)]
    qualifier: Option<Qualifier>,
    /// It raises nothing and stands in history
    #[arg(long)]
    log: bool,
    /// When it happened: a time, or how long ago
    #[arg(long, value_name = "WHEN")]
    event_time: Option<Moment>,
    /// communications, quality-of-service, processing-error, equipment, environmental …
    #[arg(long, value_parser = word::<EventType>)]
    event_type: Option<EventType>,
    /// The probable cause: threshold-crossed
    #[arg(long)]
    probable_cause: Option<ProbableCause>,
    /// What to do about it
    #[arg(long)]
    repair_action: Option<Text>,
    /// Whether service is affected
    #[arg(long, value_name = "true|false")]
    service_affecting: Option<bool>,
    /// Additional information; may be given several times
    #[arg(long = "attribute", short = 'a', value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(AttributeName, AttributeValue)>,
    /// Who reports; with --epoch and --seq a second delivery is recognised
    #[arg(long)]
    producer: Option<Producer>,
    /// The producer's epoch
    #[arg(long, requires = "seq")]
    epoch: Option<u64>,
    /// The number of the report within the epoch
    #[arg(long, requires_all = ["epoch", "producer"])]
    seq: Option<u64>,
    /// The report's id, by which a second delivery is recognised
    #[arg(long)]
    event_id: Option<EventId>,
    /// The promise to report again within this time; silence makes the alarm stale
    #[arg(long, value_name = "TIME", value_parser = lease)]
    lease: Option<Lease>,
    /// When the condition ends by itself: a time, or in how long
    #[arg(long, value_name = "WHEN")]
    ends_at: Option<Moment>,
}

fn word<T: serde::de::DeserializeOwned>(word: &str) -> Result<T, String> {
    serde_json::from_value(Value::String(word.to_owned())).map_err(|error| error.to_string())
}

fn attribute(text: &str) -> Result<(AttributeName, AttributeValue), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let name = AttributeName::new(name).map_err(|error| format!("the name {error}"))?;
    Ok((name, AttributeValue::new(value).map_err(|error| format!("the value {error}"))?))
}

fn lease(text: &str) -> Result<Lease, String> {
    let span = humantime::parse_duration(text).map_err(|_| format!("{text:?} is no length of time such as 90s or 10m"))?;
    Lease::new(u32::try_from(span.as_secs()).unwrap_or(u32::MAX)).map_err(|error| error.to_string())
}

impl EventArgs {
    fn event(&self) -> Outcome<v1::Event> {
        let (Some(resource), Some(alarm_type)) = (self.resource.clone(), self.alarm_type.clone()) else {
            return Err(Failure::new(Code::Usage, "an event needs --resource and --type"));
        };
        let attributes = Attributes::new(self.attributes.iter().cloned().collect())
            .map_err(|error| Failure::new(Code::Usage, format!("--attribute: {error}")))?;
        Ok(v1::Event {
            site: self.site.clone(),
            resource,
            alarm_type,
            qualifier: self.qualifier.clone(),
            kind: if self.log { EventKind::Log } else { EventKind::Alarm },
            severity: self.severity,
            text: self.text.clone(),
            event_time: self.event_time.map(Moment::past),
            event_type: self.event_type,
            probable_cause: self.probable_cause.clone(),
            repair_action: self.repair_action.clone(),
            service_affecting: self.service_affecting,
            attributes,
            labels: Labels::default(),
            producer: self.producer.clone(),
            epoch: self.epoch,
            seq: self.seq,
            event_id: self.event_id.clone(),
            lease_s: self.lease,
            ends_at: self.ends_at.map(Moment::future),
            span: SpanRule::default(),
            order_by_event_time: false,
            relay: None,
        })
    }
}

pub(super) async fn send(output: &Output, client: &Client, args: &SendArgs) -> Outcome {
    let mut tally = Tally::default();
    match &args.file {
        None => {
            let line = serde_json::to_string(&args.event.event()?).map_err(anyhow::Error::from)?;
            tally.send(output, client, &[line], true).await?;
        }
        Some(file) => {
            let mut events = Events::open(file)?;
            loop {
                let batch = events.batch()?;
                if batch.is_empty() {
                    break;
                }
                let alone = tally.sent == 0 && batch.len() == 1;
                tally.send(output, client, &batch, alone).await?;
            }
        }
    }
    tally.close(output)
}

/// What became of all batches together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Nothing is said of each that had come before.
    is_brief: bool,
    sent: usize,
    accepted: u64,
    duplicate: u64,
    rejected: u64,
    position: Value,
    results: Vec<Value>,
}

impl Tally {
    /// One that says nothing of each event that had come before.
    pub(super) fn brief() -> Self {
        Self { is_brief: true, ..Self::default() }
    }

    /// Sends a batch and says what became of it.
    pub(super) async fn send(&mut self, output: &Output, client: &Client, batch: &[String], alone: bool) -> Outcome {
        let answer = post(client, batch).await.inspect_err(|_| self.say_so_far(batch.len()))?;
        let mut body = answer.body;
        let rejected_all = answer.status.as_u16() == 422 && body["results"].is_array();
        if !answer.status.is_success() && !rejected_all {
            self.say_so_far(batch.len());
            return Err(super::client::Answer { body, ..answer }.failure());
        }
        let mut results = body["results"].as_array_mut().map(std::mem::take).unwrap_or_default();
        for result in &mut results {
            let index = result["index"].as_u64().unwrap_or(0) as usize + self.sent;
            result["index"] = json!(index);
            let is_passed_over = output.json || (self.is_brief && result["status"] == "duplicate");
            if !is_passed_over {
                tell(output, result, alone)?;
            }
        }
        let count = |key: &str, status: &str| {
            body[key].as_u64().unwrap_or_else(|| results.iter().filter(|result| result["status"] == status).count() as u64)
        };
        self.accepted += count("accepted", "accepted");
        self.duplicate += count("duplicate", "duplicate");
        self.rejected += count("rejected", "rejected");
        if !body["position"].is_null() {
            self.position = body["position"].take();
        }
        if output.json {
            self.results.append(&mut results);
        }
        self.sent += batch.len();
        Ok(())
    }

    /// After a failure in the middle: what can be left out when it is tried again.
    fn say_so_far(&self, batch: usize) {
        if self.sent > 0 {
            remark(&format!("The first {} events are dealt with; it failed within the next {batch}.", self.sent));
        }
    }

    /// Says what became of all.
    pub(super) fn close(self, output: &Output) -> Outcome {
        if output.json {
            let mut answer = json!({ "accepted": self.accepted, "duplicate": self.duplicate, "rejected": self.rejected,
                "results": self.results });
            if !self.position.is_null() {
                answer["position"] = self.position;
            }
            output.json(&answer)?;
        } else if self.sent != 1 {
            output.line(&format!("{} accepted, {} duplicate, {} rejected", self.accepted, self.duplicate, self.rejected))?;
        }
        if self.rejected > 0 { Err(Failure::told()) } else { Ok(()) }
    }
}

/// One event of which something is to be told.
fn tell(output: &Output, result: &Value, alone: bool) -> Outcome {
    let which = if alone { String::new() } else { format!("event {}: ", result["index"]) };
    let ignored: Vec<&str> = result["ignored"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !ignored.is_empty() {
        remark(&format!("klaxon: {which}not understood and ignored: {}", ignored.join(", ")));
    }
    match result["status"].as_str() {
        Some("rejected") => {
            let field =
                result["field"].as_str().filter(|field| *field != ".").map_or(String::new(), |field| format!("{field}: "));
            remark(&format!("klaxon: {which}rejected: {field}{}", result["reason"].as_str().unwrap_or("no reason was given")));
        }
        Some("duplicate") => output.line(&format!("{which}duplicate: it had come before"))?,
        Some("accepted") if alone => {
            let change = result["change"].as_str().unwrap_or("accepted").replace('-', " ");
            let alarm = result["alarm"].as_str().map_or(String::new(), |id| format!("  {}", short(id)));
            output.line(&format!("{change}{alarm}"))?;
        }
        _ => {}
    }
    Ok(())
}

/// Sends a batch; while the node says that it has no room, again: nothing of it was taken.
async fn post(client: &Client, batch: &[String]) -> Outcome<super::client::Answer> {
    let lines = Bytes::from(batch.join("\n") + "\n");
    patiently(|| async {
        match batch {
            // As one event, so that the node tells what became of it.
            [event] => client.post_text("/events", event).await,
            _ => client.post_lines("/events", lines.clone()).await,
        }
    })
    .await
}

/// Asks; while the node says that it has no room, again.
pub(super) async fn patiently<A>(mut ask: impl FnMut() -> A) -> Outcome<super::client::Answer>
where
    A: Future<Output = Outcome<super::client::Answer>>,
{
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = ask().await?;
        let Some(wait) = answer.retry_after_s.filter(|_| matches!(answer.status.as_u16(), 503 | 507) && tries < TRIES_MAX)
        else {
            return Ok(answer);
        };
        remark(&format!("klaxon: {}; trying again in {wait} s", answer.failure().message));
        tokio::time::sleep(Duration::from_secs(wait.clamp(1, RETRY_WAIT_S_MAX))).await;
    }
}

/// Where events come from, one JSON text each.
enum Events {
    /// They were all read.
    Whole(std::vec::IntoIter<String>),
    /// One a line, read as they are sent.
    Lines(Box<dyn BufRead>),
}

impl Events {
    fn open(file: &Path) -> Outcome<Self> {
        let name = file.display();
        let input: Box<dyn Read> = if file.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            let opened = std::fs::File::open(file);
            Box::new(opened.map_err(|error| Failure::new(Code::Usage, format!("cannot read {name}: {error}")))?)
        };
        Self::of(BufReader::with_capacity(64 << 10, input))
            .map_err(|error| Failure { message: format!("{name}: {}", error.message), ..error })
    }

    /// An array, or one event over several lines, is read whole; whatever else goes line by line.
    fn of(mut input: impl BufRead + 'static) -> Outcome<Self> {
        let wrong = |error: &dyn std::fmt::Display| Failure::new(Code::Usage, error.to_string());
        let first = loop {
            let space =
                input.fill_buf().map_err(|error| wrong(&error))?.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if space == 0 {
                break input.fill_buf().map_err(|error| wrong(&error))?.first().copied();
            }
            input.consume(space);
        };
        if first == Some(b'[') {
            let events: Vec<Value> = serde_json::from_reader(input).map_err(|error| wrong(&error))?;
            return Ok(Self::Whole(events.iter().map(Value::to_string).collect::<Vec<_>>().into_iter()));
        }
        let mut line = String::new();
        input.read_line(&mut line).map_err(|error| wrong(&error))?;
        if first == Some(b'{') && serde_json::from_str::<Value>(&line).is_err_and(|error| error.is_eof()) {
            input.read_to_string(&mut line).map_err(|error| wrong(&error))?;
            let events = serde_json::Deserializer::from_str(&line)
                .into_iter::<Value>()
                .map(|event| event.map(|event| event.to_string()));
            let events: Vec<String> = events.collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
            return Ok(Self::Whole(events.into_iter()));
        }
        Ok(Self::Lines(Box::new(std::io::Cursor::new(line.into_bytes()).chain(input))))
    }

    /// The next events; none at the end.
    fn batch(&mut self) -> Outcome<Vec<String>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
            let event = match self {
                Self::Whole(events) => events.next(),
                Self::Lines(lines) => line(lines.as_mut())?,
            };
            let Some(event) = event else { break };
            bytes += event.len();
            batch.push(event);
        }
        Ok(batch)
    }
}

/// The next line that is not empty.
fn line(lines: &mut dyn BufRead) -> Outcome<Option<String>> {
    let mut line = String::new();
    loop {
        line.clear();
        let length = lines.read_line(&mut line).map_err(|error| Failure::new(Code::Usage, format!("cannot read: {error}")))?;
        if length == 0 {
            return Ok(None);
        }
        if !line.trim().is_empty() {
            return Ok(Some(line.trim().to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Outcome<Vec<String>> {
        Events::of(text.as_bytes())?.batch()
    }

    #[test]
    fn a_file_may_hold_events_in_three_forms() {
        assert_eq!(read(" [{\"a\":1}, {\"b\":2}]").expect("reads"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(read("\n{\"a\":1}\n\n{\"b\":2}").expect("reads"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(read("{\n  \"a\": 1\n}\n").expect("reads"), ["{\"a\":1}"]);
        assert_eq!(read("{\"a\":1}\nnonsense\n").expect("the node judges it"), ["{\"a\":1}", "nonsense"]);
        assert!(read("").expect("reads").is_empty());
        assert!(read("[{\"a\":1},").is_err());
    }
}

//! One alarm: as it is, with what the catalogue says and what happened to it; and why.

use klaxon_schemas::catalogue::TypeEntry;
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::{Alarm, Change};
use serde_json::Value;

use super::alarms::{owner, read, resource, state, unheard};
use super::client::{Client, Query, percent};
use super::failure::Outcome;
use super::history::{self, Told, kind};
use super::output::{Output, Style, printable};
use super::table::wrap;
use super::time::{local, local_and_age, now};

/// How wide text is set where there is no terminal.
const TEXT_WIDTH: usize = 100;
/// How far the values are set in.
const LABEL_WIDTH: usize = 16;

/// `klaxon alarms show`.
pub(super) async fn show(output: &Output, client: &Client, id: &str) -> Outcome {
    let mut answer = client.get(&format!("/alarms/{}", percent(id)), &Query::default()).await?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let alarm: Alarm = read(answer["alarm"].take())?;
    let catalogue: Option<TypeEntry> = read(answer["catalogue"].take())?;
    let changes: Vec<Change> = read(answer["history"].take())?;
    let pending: Vec<Pending> = match answer["pending"].take() {
        Value::Null => Vec::new(),
        pending => read(pending)?,
    };
    let mut sheet = Sheet { output, text: String::new() };
    sheet.head(&alarm);
    sheet.alarm(&alarm);
    for pending in &pending {
        sheet.pending(pending);
    }
    if let Some(entry) = &catalogue {
        sheet.catalogue(entry, &alarm);
    }
    if !changes.is_empty() {
        sheet.title("History");
        sheet.text.push_str(&history::table(&changes, false).render(output));
    }
    if !answer["next"].is_null() {
        sheet.text.push_str(&format!("There is more: klaxon history --alarm {} --all\n", alarm.id));
    }
    Ok(output.text(&sheet.text)?)
}

/// `klaxon why`.
pub(super) async fn why(output: &Output, client: &Client, id: &str) -> Outcome {
    let mut answer = client.get(&format!("/alarms/{}/why", percent(id)), &Query::default()).await?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let alarm: Alarm = read(answer["alarm"].take())?;
    let mut sheet = Sheet { output, text: String::new() };
    sheet.head(&alarm);
    for mut change in answer["changes"].as_array_mut().map(std::mem::take).unwrap_or_default() {
        let because = change["because"].take();
        let change: Change = read(change)?;
        sheet.change(&change, &because);
    }
    Ok(output.text(&sheet.text)?)
}

/// An action that is on its way to the alarm's owner.
#[derive(serde::Deserialize)]
struct Pending {
    child: String,
    verb: String,
    actor: String,
    since: Timestamp,
    expires_at: Option<Timestamp>,
}

/// What is being written.
struct Sheet<'a> {
    output: &'a Output,
    text: String,
}

impl Sheet<'_> {
    fn head(&mut self, alarm: &Alarm) {
        let style = if alarm.cleared { Style::Good } else { Style::Severity(alarm.severity) };
        let word = if alarm.cleared { "cleared" } else { alarm.severity.as_str() };
        let severity = self.output.paint(style, word);
        self.text.push_str(&format!("{severity}  {}  {}\n", alarm.alarm_type, printable(&resource(alarm))));
        if let Some(text) = &alarm.text {
            self.set(0, text);
        }
    }

    fn alarm(&mut self, alarm: &Alarm) {
        let now = now();
        self.text.push('\n');
        self.row("id", &alarm.id.to_string());
        self.row("site", &alarm.site);
        self.maybe("owner", owner(alarm).map(|owner| format!("{owner}; only there it changes")).as_deref());
        self.row("state", &[alarm.severity.as_str(), &state(alarm)].join(" ").trim_end().replace(',', ", "));
        self.row("raised", &local_and_age(alarm.raised_at, now));
        if alarm.raise_seq > 1 {
            self.row("episode", &format!("{}, the first began {}", alarm.raise_seq, local(alarm.first_raised_at)));
        }
        self.row("reports", &format!("{}, the last {}", alarm.count, local_and_age(alarm.last_reported_at, now)));
        self.maybe("reporter", alarm.producer.as_deref());
        self.maybe("event time", alarm.event_time.map(|time| local_and_age(time, now)).as_deref());
        if let Some(at) = alarm.cleared_at {
            let by = alarm.cleared_by.and_then(|by| serde_json::to_value(by).ok());
            let by = by.as_ref().and_then(Value::as_str).unwrap_or("unknown");
            self.row("cleared", &format!("{} by {by}", local_and_age(at, now)));
        }
        if let Some(mark) = &alarm.acknowledged {
            self.row("acknowledged", &said(&format!("by {}, {}", mark.by, local_and_age(mark.at, now)), mark.note.as_deref()));
        }
        if let Some(assigned) = &alarm.assigned {
            self.row("assigned", &format!("to {} by {}, {}", assigned.to, assigned.by, local_and_age(assigned.at, now)));
        }
        if let Some(shelved) = &alarm.shelved {
            let until = format!("until {} by {}", local_and_age(shelved.until, now), shelved.by);
            self.row("shelved", &said(&until, Some(&shelved.reason)));
        }
        self.maybe("stale", unheard(alarm, now).as_deref());
        for note in &alarm.notes {
            self.row("note", &said(&format!("{}, {}", note.by, local_and_age(note.at, now)), Some(&note.text)));
        }
        self.maybe("probable cause", alarm.probable_cause.as_deref());
        if let Some(affected) = alarm.service_affecting {
            self.row("service", if affected { "affected" } else { "not affected" });
        }
        for (name, value) in alarm.attributes.iter() {
            self.row(name, value);
        }
        for (name, value) in alarm.labels.set().iter() {
            // Anything may stand in a label, also what a terminal would obey.
            self.row("label", &format!("{}={value:?}", name.escape_debug()));
        }
        self.maybe("what to do", alarm.repair_action.as_deref());
    }

    fn pending(&mut self, pending: &Pending) {
        let now = now();
        let Pending { child, verb, actor, since, expires_at } = pending;
        let until = expires_at.map_or(String::new(), |until| format!("; given up {}", local_and_age(until, now)));
        self.row("pending", &format!("{verb} by {actor}, on its way to {child} since {}{until}", local_and_age(*since, now)));
    }

    fn catalogue(&mut self, entry: &TypeEntry, alarm: &Alarm) {
        self.title(&entry.title);
        self.set(0, entry.text_at(alarm.severity));
        if alarm.repair_action.is_none() {
            self.row("what to do", entry.repair_action_at(alarm.severity));
        }
        self.maybe("thresholds", entry.thresholds.as_deref());
        self.maybe("runbook", entry.runbook.as_deref());
        self.maybe("StarlingX", entry.starlingx_id.as_deref());
    }

    fn change(&mut self, change: &Change, because: &Value) {
        let told = Told::of(change);
        let actor = change.actor.as_ref().map_or(String::new(), |actor| format!(" by {actor}"));
        let title = format!("{}  {}{actor}", local(change.at), kind(change.kind));
        self.title(&title);
        if !told.text.is_empty() {
            self.set(2, &told.text);
        }
        for reason in because.as_array().map_or(&[][..], Vec::as_slice) {
            self.set(2, &format!("because {}", reason["text"].as_str().unwrap_or("of something that is not told")));
        }
    }

    fn title(&mut self, title: &str) {
        let title = self.output.paint(Style::Bold, &printable(title));
        self.text.push_str(&format!("\n{title}\n"));
    }

    fn maybe(&mut self, label: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.row(label, value);
        }
    }

    fn row(&mut self, label: &str, value: &str) {
        let lines = wrap(value, self.width().saturating_sub(LABEL_WIDTH).max(20));
        for (index, line) in lines.iter().enumerate() {
            let label = if index == 0 { format!("{:<LABEL_WIDTH$}", printable(label)) } else { " ".repeat(LABEL_WIDTH) };
            self.text.push_str(&format!("{}{}\n", self.output.paint(Style::Dim, &label), printable(line)));
        }
    }

    fn set(&mut self, indent: usize, text: &str) {
        for line in wrap(text, self.width().saturating_sub(indent)) {
            self.text.push_str(&format!("{}{}\n", " ".repeat(indent), printable(&line)));
        }
    }

    fn width(&self) -> usize {
        self.output.width().unwrap_or(TEXT_WIDTH)
    }
}

fn said(what: &str, words: Option<&str>) -> String {
    match words {
        Some(words) if !words.is_empty() => format!("{what}: {words}"),
        _ => what.to_owned(),
    }
}

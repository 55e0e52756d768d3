//! What an operator does: one command a verb. The node knows who it is by the Unix socket.

use clap::{ArgGroup, Args, Subcommand};
use klaxon_schemas::change::ChangeKind;
use klaxon_schemas::names::{Actor, AlarmType, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::wire::v1::{Change, ChangeSubject};
use serde_json::{Map, Value, json};

use super::alarms::{read, resource, short};
use super::client::{Client, Endpoint};
use super::failure::{Code, Failure, Outcome};
use super::filter::{Filter, Whether};
use super::history::kind;
use super::output::{Output, Style, remark};
use super::time::{Moment, local};

/// One verb.
#[derive(Debug, Subcommand)]
pub(super) enum ActionArgs {
    /// Say that you have seen alarms
    Ack(Noted),
    /// Take that back
    Unack(Targets),
    /// Give alarms to somebody
    #[command(group(ArgGroup::new("whose").args(["to", "nobody"]).required(true)))]
    Assign {
        #[command(flatten)]
        targets: Targets,
        /// To whom
        #[arg(long, value_name = "NAME")]
        to: Option<Actor>,
        /// To nobody
        #[arg(long)]
        nobody: bool,
    },
    /// Write something about alarms
    Note {
        #[command(flatten)]
        targets: Targets,
        /// What
        #[arg(long, short, value_name = "WORDS")]
        message: Text,
    },
    /// Set alarms aside until a time; with --match also those that are still to come
    Shelve(Shelve),
    /// Take alarms off the shelf, or a whole shelf away
    Unshelve {
        #[command(flatten)]
        targets: TargetsOrShelf,
    },
    /// Hide all alarms of a type, and notify nobody of them
    Suppress {
        /// The type
        #[arg(value_name = "TYPE")]
        alarm_type: AlarmType,
        /// Why
        #[arg(long)]
        reason: Option<Text>,
    },
    /// Show the alarms of a type again
    Unsuppress {
        /// The type
        #[arg(value_name = "TYPE")]
        alarm_type: AlarmType,
    },
    /// Declare alarms over; the next report raises them again
    Clear(Noted),
    /// Clear and forget alarms whose resource will never report again
    Retire(Noted),
    /// Forget alarms that are cleared
    Purge(Targets),
}

/// Which alarms: by id, or by filter.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").args(["ids", "filtered"]).required(true)))]
pub(super) struct Targets {
    /// Their ids, or the first digits (at least 4)
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All that the filters pick; without a filter all that are not cleared
    #[arg(long = "all", id = "filtered", conflicts_with = "ids")]
    filtered: bool,
    #[command(flatten)]
    filter: Filter,
}

/// Which alarms, and in which words.
#[derive(Debug, Args)]
pub(super) struct Noted {
    #[command(flatten)]
    targets: Targets,
    /// Some words about it
    #[arg(long, short, value_name = "WORDS")]
    message: Option<Text>,
}

/// What is shelved, until when and why.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("end").args(["for", "until"]).required(true)))]
#[command(group(ArgGroup::new("what").args(["ids", "matching"]).required(true)))]
pub(super) struct Shelve {
    /// The alarms' ids, or the first digits (at least 4)
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// What matches: site=NAME, resource=PATH (and what is under it), type=TYPE, qualifier=TEXT; give it several times for
    /// what must match all
    #[arg(long = "match", id = "matching", value_name = "KEY=VALUE", conflicts_with = "ids")]
    matching: Vec<Match>,
    /// For how long: 2h
    #[arg(long = "for", id = "for", value_name = "TIME", value_parser = duration)]
    length: Option<Moment>,
    /// Until when: 18:00, "2026-11-22 18:00" or RFC 3339
    #[arg(long, value_name = "WHEN")]
    until: Option<Moment>,
    /// Why
    #[arg(long)]
    reason: Text,
}

/// What is unshelved.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").args(["ids", "shelf"]).required(true)))]
pub(super) struct TargetsOrShelf {
    /// The alarms' ids, or the first digits (at least 4)
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// The shelf, as `klaxon alarms shelves` names it
    #[arg(long, value_name = "SHELF", conflicts_with = "ids")]
    shelf: Option<String>,
}

/// One condition of a shelf.
#[derive(Debug, Clone)]
struct Match(&'static str, String);

impl std::str::FromStr for Match {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write site=NAME, resource=PATH, type=TYPE or qualifier=TEXT")?;
        let wrong = |error: &dyn std::fmt::Display| format!("{key}: {error}");
        let key = match key {
            "site" => Site::new(value).map(|_| "site").map_err(|error| wrong(&error))?,
            "resource" => Resource::new(value).map(|_| "resource").map_err(|error| wrong(&error))?,
            "type" | "alarm_type" => AlarmType::new(value).map(|_| "alarm_type").map_err(|error| wrong(&error))?,
            "qualifier" => Qualifier::new(value).map(|_| "qualifier").map_err(|error| wrong(&error))?,
            _ => return Err(format!("{key:?} is none of site, resource, type, qualifier")),
        };
        Ok(Self(key, value.to_owned()))
    }
}

pub(super) fn duration(text: &str) -> Result<Moment, String> {
    humantime::parse_duration(text)
        .map(Moment::Away)
        .map_err(|_| format!("{text:?} is no length of time such as 90m, 2h or 1d"))
}

/// Does it.
pub(super) async fn act(output: &Output, client: &Client, action: ActionArgs) -> Outcome {
    let order = order(action)?;
    let answer = client.post("/actions", &order).await?;
    let refused = answer.body.get("refusals").and_then(Value::as_array).is_some_and(|refusals| !refusals.is_empty());
    // A refusal of all of them is told like a refusal of some.
    if !answer.status.is_success() && (!refused || output.json) {
        let mut failure = answer.failure();
        if answer.status.as_u16() == 401 && matches!(client.endpoint(), Endpoint::Net(_)) {
            if let Some(forbidden) = client.forbidden() {
                failure.message.push_str(&format!("; {forbidden}"));
            } else if !failure.message.contains("socket") {
                failure.message.push_str("; act over the node's Unix socket, e.g. --node ./klaxon-data/klaxon.sock");
            }
        }
        return Err(failure);
    }
    if output.json {
        output.json(&answer.body)?;
        return if refused { Err(Failure::told()) } else { Ok(()) };
    }
    report(output, answer.body)
}

/// One line a change on standard output, one line a refusal on standard error.
fn report(output: &Output, mut body: Value) -> Outcome {
    let changes: Vec<Change> = body.get_mut("changes").map_or(Ok(Vec::new()), |changes| read(changes.take()))?;
    for change in &changes {
        output.line(&line(output, change))?;
    }
    let pending = body["pending"].as_array().map_or(&[][..], Vec::as_slice);
    let places: Vec<&str> = pending.iter().filter_map(|pending| pending["child"].as_str()).collect();
    let refusals = body["refusals"].as_array().cloned().unwrap_or_default();
    for refusal in &refusals {
        let alarm = refusal["alarm"].as_str().map_or(String::new(), |id| format!("{}: ", short(id)));
        let why = refusal["text"].as_str().or_else(|| refusal["reason"].as_str()).unwrap_or("no reason was given");
        remark(&format!("klaxon: {alarm}refused: {why}"));
    }
    if !refusals.is_empty() {
        return Err(Failure::told());
    }
    if !places.is_empty() {
        let places = places.join(", ");
        remark(&format!(
            "It is on its way to {places} and has not taken effect yet; klaxon alarms show ID tells how it stands."
        ));
    } else if changes.is_empty() {
        let id = body["id"].as_str().unwrap_or("unknown");
        let what =
            if body["duplicate"] == true { "was carried out before" } else { "is under way and has not taken effect yet" };
        remark(&format!("The action {id} {what}."));
    }
    Ok(())
}

/// What happened to what.
fn line(output: &Output, change: &Change) -> String {
    let what = output.paint(Style::Good, kind(change.kind));
    match &change.subject {
        ChangeSubject::Alarm { alarm, .. } if change.kind == ChangeKind::Pending => {
            let at = alarm.via.as_ref().map_or("another site", |via| via);
            format!("{what} at {at}  {}  {}  {}", short(&alarm.id.to_string()), alarm.alarm_type, resource(alarm))
        }
        ChangeSubject::Alarm { alarm, .. } => {
            let until = match &alarm.shelved {
                Some(shelved) => format!(" until {}", local(shelved.until)),
                None => String::new(),
            };
            format!("{what}{until}  {}  {}  {}", short(&alarm.id.to_string()), alarm.alarm_type, resource(alarm))
        }
        ChangeSubject::Shelf { shelf } => format!("{what}  {}  until {}", shelf.id, local(shelf.order.until)),
        ChangeSubject::Suppression { alarm_type, .. } => format!("{what}  {alarm_type}"),
        _ => what,
    }
}

/// The alarms that an order names; a filter beside ids would be overlooked.
fn on<const N: usize>(action: &str, targets: &Targets, fields: [(&str, Option<Value>); N]) -> Outcome<Value> {
    let mut order = json!({ "action": action });
    if targets.filtered {
        let mut filter = targets.filter.clone();
        // Said in any case: a node refuses a filter that asks for nothing.
        filter.cleared.get_or_insert(if action == "purge" { Whether::True } else { Whether::False });
        order["filter"] = filter.query().to_json();
    } else if !targets.filter.query().is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "ids and filters together: name the alarms, or write --all for all that the filters pick",
        ));
    } else {
        order["alarms"] = json!(targets.ids);
    }
    for (key, value) in fields {
        if let Some(value) = value {
            order[key] = value;
        }
    }
    Ok(order)
}

/// The order as the API has it.
fn order(action: ActionArgs) -> Outcome<Value> {
    Ok(match action {
        ActionArgs::Ack(Noted { targets, message }) => on("acknowledge", &targets, [("note", message.map(json_text))])?,
        ActionArgs::Unack(targets) => on("unacknowledge", &targets, [])?,
        ActionArgs::Assign { targets, to, nobody: _ } => on("assign", &targets, [("to", to.map(|to| json!(&*to)))])?,
        ActionArgs::Note { targets, message } => on("note", &targets, [("text", Some(json_text(message)))])?,
        ActionArgs::Clear(Noted { targets, message }) => on("clear", &targets, [("note", message.map(json_text))])?,
        ActionArgs::Retire(Noted { targets, message }) => on("retire", &targets, [("note", message.map(json_text))])?,
        ActionArgs::Purge(targets) => on("purge", &targets, [])?,
        ActionArgs::Suppress { alarm_type, reason } => {
            json!({ "action": "suppress", "alarm_type": alarm_type, "reason": reason })
        }
        ActionArgs::Unsuppress { alarm_type } => json!({ "action": "unsuppress", "alarm_type": alarm_type }),
        ActionArgs::Unshelve { targets: TargetsOrShelf { shelf: Some(shelf), .. } } => {
            json!({ "action": "remove-shelf", "shelf": shelf })
        }
        ActionArgs::Unshelve { targets } => json!({ "action": "unshelve", "alarms": targets.ids }),
        ActionArgs::Shelve(Shelve { ids, matching, length, until, reason }) => {
            let Some(until) = length.or(until).map(Moment::future) else {
                return Err(Failure::new(Code::Usage, "say for how long: --for 2h or --until 18:00"));
            };
            if matching.is_empty() {
                json!({ "action": "shelve", "alarms": ids, "until": until, "reason": reason })
            } else {
                let conditions: Map<String, Value> =
                    matching.into_iter().map(|Match(key, value)| (key.to_owned(), Value::String(value))).collect();
                json!({ "action": "add-shelf", "match": conditions, "until": until, "reason": reason })
            }
        }
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `Option::map`")]
fn json_text(text: Text) -> Value {
    Value::String(text.as_str().to_owned())
}

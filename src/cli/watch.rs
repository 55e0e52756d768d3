//! `klaxon alarms watch`: the stream of changes (server-sent events), taken up again where it broke off.

use std::time::Duration;

use bytes::Buf as _;
use clap::Args;
use http_body_util::BodyExt as _;
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::wire::v1::{Change, Touched};
use serde_json::Value;

use super::alarms::{read, short};
use super::client::{Client, Query};
use super::failure::{Code, Failure, Outcome};
use super::history::{Told, happened};
use super::output::{Output, Style, printable, remark};
use super::table::cut;
use super::time::local;

/// The node sends something every 15 s; a connection that is silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
const RETRY_WAITS_S: [u64; 4] = [1, 2, 5, 10];
/// The longest event that is taken.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// Which changes.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Of this site
    #[arg(long)]
    site: Option<Site>,
    /// On this resource, or on what it contains
    #[arg(long)]
    resource: Option<Resource>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    alarm_type: Option<AlarmType>,
    /// At least this urgent
    #[arg(long, value_name = "SEVERITY")]
    min_severity: Option<Severity>,
    /// From this position of the journal on [without it: from now on]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// Also when an active alarm is only reported again
    #[arg(long)]
    repeats: bool,
}

/// One event of the stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    name: String,
    id: Option<String>,
    data: String,
}

/// Why a connection ended.
enum End {
    /// It broke.
    Broken,
    /// The node says that we must begin anew, from this position.
    Reset(Option<u64>),
}

pub(super) async fn watch(output: &Output, client: &Client, args: &WatchArgs) -> Outcome {
    let mut from = args.from;
    let mut tries = 0;
    loop {
        match client.stream(&query(args, from)).await {
            Ok(mut body) => {
                tries = 0;
                match follow(output, &mut body, args, &mut from).await? {
                    End::Broken => remark("The connection broke off; connecting again."),
                    End::Reset(position) => {
                        remark("The node cannot go on from here: some changes are not shown. Going on from now.");
                        from = position;
                    }
                }
            }
            // The first try tells at once; later the node may just be starting anew.
            Err(failure) if from.is_none() || !matches!(failure.code, Code::NoNode | Code::Later) => return Err(failure),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_secs(RETRY_WAITS_S[tries.min(RETRY_WAITS_S.len() - 1)])).await;
        tries += 1;
    }
}

fn query(args: &WatchArgs, from: Option<u64>) -> Query {
    let mut query = Query::default();
    query.add("from", from);
    query.add("site", args.site.as_ref());
    query.add("resource", args.resource.as_ref());
    query.add("alarm_type", args.alarm_type.as_ref());
    query.add("min_severity", args.min_severity);
    query
}

async fn follow(output: &Output, body: &mut hyper::body::Incoming, args: &WatchArgs, from: &mut Option<u64>) -> Outcome<End> {
    let mut parser = Parser::default();
    loop {
        let frame = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_)) | None) | Err(_) => return Ok(End::Broken),
        };
        let Ok(mut data) = frame.into_data() else { continue };
        while data.has_remaining() {
            let length = data.chunk().len();
            parser.buffer.extend_from_slice(data.chunk());
            data.advance(length);
        }
        while let Some(event) = parser.next() {
            if event.name == "reset" {
                let reset: Value = serde_json::from_str(&event.data).unwrap_or_default();
                return Ok(End::Reset(reset["position"].as_u64()));
            }
            tell(output, &event, args)?;
            // The id is `EPOCH-POSITION`.
            let position = event.id.as_deref().and_then(|id| id.rsplit_once('-')?.1.parse().ok());
            *from = position.or_else(|| position_of_hello(&event)).or(*from);
        }
        if parser.buffer.len() > EVENT_BYTES_MAX {
            return Err(Failure::new(Code::Failed, "the node sends an event that is too long"));
        }
    }
}

fn position_of_hello(event: &Event) -> Option<u64> {
    let hello: Value = if event.name == "hello" { serde_json::from_str(&event.data).ok()? } else { return None };
    hello["position"].as_u64()
}

fn tell(output: &Output, event: &Event, args: &WatchArgs) -> Outcome {
    let value: Value = match event.name.as_str() {
        "change" => read(serde_json::from_str(&event.data).unwrap_or_default())?,
        "touched" if args.repeats => read(serde_json::from_str(&event.data).unwrap_or_default())?,
        _ => return Ok(()),
    };
    if output.json {
        return Ok(output.line(&value.to_string())?);
    }
    if event.name == "touched" {
        let touched: Touched = read(value)?;
        let line = format!(
            "{}  reported again  {}  {} times",
            local(touched.last_reported_at),
            short(&touched.alarm.to_string()),
            touched.count
        );
        return Ok(output.line(&output.paint(Style::Dim, &line))?);
    }
    Ok(output.line(&line(output, &read(value)?))?)
}

fn line(output: &Output, change: &Change) -> String {
    let told = Told::of(change);
    let actor = change.actor.as_ref().map_or(String::new(), |actor| format!(" by {actor}"));
    let what = format!("{}{actor}", happened(change));
    let parts = [
        local(change.at),
        format!("{:<9}", told.severity.text()),
        format!("{what:<12}"),
        told.id,
        told.resource,
        told.alarm_type,
        told.text,
    ];
    let shown: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).map(|part| printable(&part)).collect();
    let line = shown.join("  ");
    let line = output.width().map_or_else(|| line.clone(), |width| cut(&line, width));
    output.paint(told.severity.style(), &line)
}

/// Cuts a stream of server-sent events into events (HTML Living Standard, 9.2.6).
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
}

impl Parser {
    /// The next event that is there whole.
    fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let event = Self::event(&String::from_utf8_lossy(&block));
            // A comment is a heartbeat and nothing more.
            if event != Event::default() {
                return Some(event);
            }
        }
    }

    fn event(block: &str) -> Event {
        let mut event = Event::default();
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "id" => event.id = Some(value.to_owned()),
                "data" if event.data.is_empty() => value.clone_into(&mut event.data),
                "data" => event.data = format!("{}\n{value}", event.data),
                _ => {}
            }
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_out_wherever_the_pieces_end() {
        let stream = ": heartbeat\n\nid: 7-12\nevent: change\ndata: {\"a\":\ndata: 1}\n\nevent: hello\ndata: {\"position\":3}\n\nevent: cha";
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for byte in stream.bytes() {
            parser.buffer.push(byte);
            events.extend(parser.next());
        }
        assert_eq!(events.len(), 2);
        assert_eq!(events[0], Event { name: "change".into(), id: Some("7-12".into()), data: "{\"a\":\n1}".into() });
        assert_eq!(position_of_hello(&events[1]), Some(3));
    }
}

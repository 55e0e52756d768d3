//! `klaxon trap explain`: how traps are read and mapped, and why. Needs no node and tells nobody.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use klaxon_ingest::trap::explain::{Explained, Explainer};
use klaxon_ingest::trap::mapping::{Judgement, Verdict};
use klaxon_schemas::event::{Event, Report};
use klaxon_schemas::wire::v1;
use serde_json::{Value, json};

use super::capture::{self, Capture, Captured};
use super::failure::{Code, Failure, Outcome};
use super::output::{Output, Style, printable, remark};
use crate::config::Config;

/// The ports of traps. What comes there is told of also if it is no trap.
const PORTS: [u16; 3] = [162, 1162, 10_162];
/// The largest file.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// The largest datagram there can be.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What is done with traps.
#[derive(Debug, Subcommand)]
pub(super) enum TrapCommand {
    /// Tell how traps are read and mapped, and why: from a file, or as they come
    #[command(after_help = "\
Examples:
  klaxon trap explain capture.pcap                        what tcpdump -w capture.pcap port 162 has seen
  klaxon trap explain --mapping new.toml capture.pcap     try a mapping file before it is configured
  klaxon trap explain --listen 127.0.0.1:9162             read traps as they come
  echo 302c0201… | klaxon trap explain -                  a datagram as hexadecimal digits")]
    Explain(Box<ExplainArgs>),
}

/// Which traps, and by which rules.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A capture (pcap, pcapng), a datagram, or datagrams as hexadecimal text; - is standard input
    #[arg(required_unless_present = "listen", conflicts_with = "listen")]
    file: Option<PathBuf>,
    /// Read traps that come to this address; they are told to nobody, and informs are not answered
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// With --listen: end after so many datagrams
    #[arg(long, requires = "listen", value_name = "N")]
    count: Option<u64>,
    /// Where the traps of a file came from, if it does not say so
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    source: IpAddr,
    /// A mapping file, or a folder of them, that goes before all others; may be given several times
    #[arg(long = "mapping", value_name = "FILE")]
    mappings: Vec<PathBuf>,
    /// The configuration with the mappings, devices, sites, versions, communities and users of SNMPv3; without one only the built-in
    /// mappings are known
    #[arg(long, env = "KLAXON_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn explain(output: &Output, args: &ExplainArgs) -> Outcome {
    let config = match &args.config {
        Some(file) => Config::load(file).map_err(|error| Failure::of(Code::Usage, &error))?,
        None => Config::default(),
    };
    // Whoever explains may not be let read the secrets; what needs none is explained all the same.
    let users = config.users().map(|users| config.trap_users(&users)).unwrap_or_else(|(key, reason)| {
        remark(&format!("no user of SNMPv3 is known: {key}: {reason}"));
        Vec::new()
    });
    let mut traps = config.traps;
    traps.mappings.splice(..0, args.mappings.iter().cloned());
    let rules = traps.rules().map_err(|(_, reason)| Failure::new(Code::Usage, reason))?;
    let communities = traps.communities.iter().map(|community| community.0.clone()).collect();
    let explainer = Explainer::new(config.node.site, rules.devices, rules.mappings);
    let mut explainer = explainer.taking(&traps.versions, communities, users);
    match (&args.file, args.listen) {
        (_, Some(listen)) => listening(output, &mut explainer, listen, args.count),
        (Some(file), None) => of_file(output, &mut explainer, file, args.source),
        (None, None) => Err(Failure::new(Code::Usage, "name a file, or an address with --listen")),
    }
}

fn of_file(output: &Output, explainer: &mut Explainer, file: &Path, source: IpAddr) -> Outcome {
    let failed = |reason: String| Failure::new(Code::Usage, format!("{}: {reason}", file.display()));
    let bytes = read(file).map_err(|error| failed(error.to_string()))?;
    let capture = capture::read(&bytes, source).map_err(failed)?;
    let mut shown = Vec::new();
    let (mut readable, mut strangers) = (0_u64, 0_u64);
    for (index, datagram) in capture.datagrams.iter().enumerate() {
        let explained = explainer.explain(&datagram.bytes, datagram.from);
        let is_expected = datagram.to_port.is_none_or(|port| PORTS.contains(&port));
        if explained.is_err() && !is_expected {
            strangers += 1;
            continue;
        }
        readable += u64::from(explained.is_ok());
        let number = index as u64 + 1;
        if output.json {
            shown.push(as_json(number, datagram, &explained));
        } else {
            output.text(&as_text(output, number, datagram, &explained))?;
        }
    }
    let remarks = remarks(&capture, strangers);
    if output.json {
        output.json(&json!({ "traps": shown, "remarks": remarks }))?;
    } else {
        remarks.iter().for_each(|line| remark(line));
    }
    match readable {
        0 => Err(Failure::new(Code::NotFound, format!("{}: there is no trap in it that can be read", file.display()))),
        _ => Ok(()),
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// What of a file was left out.
fn remarks(capture: &Capture, strangers: u64) -> Vec<String> {
    let mut remarks = Vec::new();
    if capture.others > 0 {
        remarks.push(format!("{} packets are no UDP and were passed over", capture.others));
    }
    if strangers > 0 {
        remarks.push(format!("{strangers} datagrams to other ports are no traps and were passed over"));
    }
    if capture.fragments > 0 {
        remarks.push(format!("{} packets are fragments of larger ones, which are not put together here", capture.fragments));
    }
    if let Some(reason) = &capture.cut {
        remarks.push(format!("the capture is not whole: {reason}"));
    }
    remarks
}

fn listening(output: &Output, explainer: &mut Explainer, listen: SocketAddr, count: Option<u64>) -> Outcome {
    let failed = |error: std::io::Error| Failure::new(Code::Failed, format!("cannot listen on {listen}: {error}"));
    let socket = UdpSocket::bind(listen).map_err(failed)?;
    remark(&format!("listening for traps on {}", socket.local_addr().map_err(failed)?));
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    for number in 1..=count.unwrap_or(u64::MAX) {
        let (length, from) = socket.recv_from(&mut buffer).map_err(failed)?;
        let datagram = Captured { from, to_port: None, bytes: buffer[..length].to_owned() };
        let explained = explainer.explain(&datagram.bytes, from);
        if output.json {
            output.json(&as_json(number, &datagram, &explained))?;
        } else {
            output.text(&as_text(output, number, &datagram, &explained))?;
        }
    }
    Ok(())
}

fn kind(explained: &Explained) -> &'static str {
    if explained.notification.inform.is_some() { "inform" } else { "trap" }
}

fn as_json(number: u64, datagram: &Captured, explained: &Result<Explained, String>) -> Value {
    let head = json!({ "number": number, "source": datagram.from.to_string(), "bytes": datagram.bytes.len() });
    let rest = match explained {
        Err(reason) => json!({ "error": reason }),
        Ok(explained) => json!({
            "version": explained.notification.version.as_str(),
            "kind": kind(explained),
            "trap_oid": explained.notification.trap_oid.to_string(),
            "trap": explained.trap_name,
            "variables": explained.variables.iter().map(|variable| json!({
                "oid": variable.oid, "name": variable.name, "type": variable.type_name, "value": variable.value,
            })).collect::<Vec<_>>(),
            "rules": explained.judgements.iter().map(rule_json).collect::<Vec<_>>(),
            "event": v1::Event::from(&explained.event),
        }),
    };
    let (Value::Object(mut all), Value::Object(rest)) = (head, rest) else { unreachable!("both are objects") };
    all.extend(rest);
    Value::Object(all)
}

fn rule_json(judgement: &Judgement) -> Value {
    let Judgement { file, line, rule, verdict } = judgement;
    let (word, reason) = said(verdict);
    let mut value = json!({ "file": file, "line": line, "rule": rule, "verdict": word });
    if let Some(reason) = reason {
        value["reason"] = reason.into();
    }
    if let Verdict::Matched { cleared_by, clears } = verdict {
        value["cleared_by"] = json!(cleared_by);
        value["clears"] = json!(clears);
    }
    value
}

fn said(verdict: &Verdict) -> (&'static str, Option<&str>) {
    match verdict {
        Verdict::Matched { .. } => ("matched", None),
        Verdict::Missed(reason) => ("missed", Some(reason)),
        Verdict::NotReached => ("not reached", None),
        Verdict::Near(reason) => ("near", Some(reason)),
    }
}

fn as_text(output: &Output, number: u64, datagram: &Captured, explained: &Result<Explained, String>) -> String {
    let bold = |text: &str| output.paint(Style::Bold, text);
    let explained = match explained {
        Ok(explained) => explained,
        Err(reason) => return format!("{} from {}: {}\n", bold(&format!("{number}.")), datagram.from, printable(reason)),
    };
    let notification = &explained.notification;
    let (version, oid) = (notification.version.as_str(), &notification.trap_oid);
    let name = explained.trap_name.as_deref().unwrap_or("of no known name");
    let head = format!("{number}. {} of SNMP v{version} from {}: {oid} ({name})", kind(explained), datagram.from);
    let mut text = format!("{}\n", bold(&head));
    for oddity in &notification.oddities {
        let _ = writeln!(text, "  odd: {}", printable(oddity));
    }
    let _ = writeln!(text, "  {}", bold("variables"));
    for variable in &explained.variables {
        let name = variable.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let _ = writeln!(text, "    {}{name} = {}: {}", variable.oid, variable.type_name, printable(&variable.value));
    }
    let _ = writeln!(text, "  {}", bold("rules"));
    if explained.judgements.is_empty() {
        let _ = writeln!(text, "    none is for this trap, so it is kept as it came");
    }
    for judgement in &explained.judgements {
        text.push_str(&rule_text(output, judgement));
    }
    let _ = writeln!(text, "  {}", bold("event"));
    text.push_str(&event_text(output, &explained.event));
    text
}

fn rule_text(output: &Output, judgement: &Judgement) -> String {
    let Judgement { file, line, rule, verdict } = judgement;
    let (word, reason) = said(verdict);
    let style = if matches!(verdict, Verdict::Matched { .. }) { Style::Good } else { Style::Dim };
    let mut text = format!("    {} {rule} ({file}:{line})", output.paint(style, &format!("{word:<11}")));
    if let Some(reason) = reason {
        let _ = write!(text, ": {}", printable(reason));
    }
    if let Verdict::Matched { cleared_by, clears } = verdict {
        if !cleared_by.is_empty() {
            let _ = write!(text, ", cleared by {}", cleared_by.join(", "));
        }
        if let Some(clears) = clears {
            let _ = write!(text, ", clears what {clears} raises");
        }
    }
    text.push('\n');
    text
}

fn event_text(output: &Output, event: &Event) -> String {
    let report = match event.report {
        Report::Raise(severity) => format!("raises {}", output.paint(Style::Severity(severity), severity.as_str())),
        Report::Clear => output.paint(Style::Good, "clears the alarm with this key"),
        Report::Log(severity) => format!("log event, {severity}; it raises nothing"),
        Report::Heartbeat { .. } => "heartbeat".to_owned(),
    };
    let mut text = format!("    {report}\n");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "    {name:<10} {}", printable(value));
    };
    row("site", &event.key.site);
    row("resource", event.key.resource.as_str());
    row("type", &event.key.alarm_type);
    if !event.key.qualifier.is_empty() {
        row("qualifier", &event.key.qualifier);
    }
    row("text", &event.text);
    for (name, value) in event.details.attributes.iter() {
        row("attribute", &format!("{}={}", &**name, &**value));
    }
    text
}

//! `klaxon demo`: a dozen believable alarms, raised, changed and cleared over a minute, so that a healthy machine too has
//! something to show. All lie under the resource `demo=klaxon` and carry the attribute `demo`: nobody takes them for real.

use std::time::Duration;

use clap::Args;
use klaxon_schemas::wire::v1::PerceivedSeverity;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::client::Client;
use super::failure::{Code, Failure, Outcome};
use super::output::{Output, Style, remark};
use PerceivedSeverity::{Cleared, Critical, Major, Minor, Warning};

/// What everything lies under.
const ROOT: &str = "demo=klaxon";
/// How many parts the story has; each lasts as long as the others.
const PARTS: u32 = 60;
const PRODUCER: &str = "klaxon-demo";

/// How the demonstration goes.
#[derive(Debug, Args)]
#[command(after_help = "\
What it raises lies under the resource demo=klaxon; some of it is left standing at the end, to be looked at:
  klaxon alarms --resource demo=klaxon
  klaxon demo --stop")]
pub(super) struct DemoArgs {
    /// How long the story takes: 1m; with 0s all of it comes at once
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Remove what a demonstration has left
    #[arg(long, conflicts_with = "length")]
    stop: bool,
}

/// One report of the story: in which part, about what, of which type, how bad, in which words.
struct Step(u32, &'static str, &'static str, PerceivedSeverity, &'static str);

/// A storm takes a valley's power; the depot runs on its battery and loses its uplink, and beside it ordinary things happen.
const STORY: [Step; 26] = [
    Step(0, "host=edge-04.filesystem=/var", "disk.full", Minor, "File system is 71 % used; the threshold is 70 %."),
    Step(2, "site=depot-7.power=mains", "power.on-battery", Major, "Mains lost; on battery, 94 % left."),
    Step(4, "host=gw-07.port=wan0", "link.down", Critical, "Carrier lost on the uplink."),
    Step(
        5,
        "site=depot-7.router=gw-07.peer=10.70.0.1",
        "routing.peer-down",
        Major,
        "BGP session to 10.70.0.1 is down: hold timer expired.",
    ),
    Step(7, "host=edge-04", "cpu.high", Major, "Processors are 93 % busy; the threshold is 90 %."),
    Step(9, "cabinet=depot-7/B.door=front", "door.open", Warning, "The front door is open."),
    Step(11, "host=edge-04.filesystem=/var", "disk.full", Major, "File system is 83 % used; the threshold is 80 %."),
    Step(13, "host=gw-07.ntp", "time.unsynchronised", Minor, "No time server answers."),
    Step(16, "cabinet=depot-7/B.sensor=inlet", "temperature.high", Minor, "34 °C at the inlet; the threshold is 32 °C."),
    Step(18, "host=edge-04", "cpu.high", Critical, "Processors are 98 % busy; the threshold is 95 %."),
    Step(20, "cabinet=depot-7/B.fan=2", "fan.failed", Major, "Fan 2 stands still."),
    Step(23, "cabinet=depot-7/B.door=front", "door.open", Cleared, "The front door is closed."),
    Step(25, "host=db-01.database=tickets", "database.replication-lag", Warning, "The replica is 42 s behind."),
    Step(27, "cabinet=depot-7/B.sensor=inlet", "temperature.high", Major, "41 °C at the inlet; the threshold is 40 °C."),
    Step(29, "site=depot-7.power=mains", "power.on-battery", Critical, "Mains lost; on battery, 18 % left."),
    Step(31, "host=edge-04.filesystem=/var", "disk.full", Critical, "File system is 92 % used; the threshold is 90 %."),
    Step(
        33,
        "host=web-02.certificate=/etc/ssl/portal.pem",
        "certificate.expiring",
        Major,
        "CN=portal.example expires in 6 days.",
    ),
    Step(36, "host=web-02.unit=backup.service", "backup.failed", Minor, "The nightly backup ended with exit code 23."),
    Step(38, "host=edge-04", "cpu.high", Cleared, "Processors are 41 % busy."),
    Step(41, "site=depot-7.power=mains", "power.on-battery", Cleared, "Mains is back."),
    Step(43, "host=gw-07.port=wan0", "link.down", Cleared, "Carrier is back."),
    Step(
        45,
        "site=depot-7.router=gw-07.peer=10.70.0.1",
        "routing.peer-down",
        Cleared,
        "BGP session to 10.70.0.1 is established.",
    ),
    Step(47, "host=gw-07.ntp", "time.unsynchronised", Cleared, "Synchronised with 10.70.0.1."),
    Step(50, "host=db-01.database=tickets", "database.replication-lag", Minor, "The replica is 95 s behind."),
    Step(53, "cabinet=depot-7/B.sensor=inlet", "temperature.high", Minor, "35 °C at the inlet; the threshold is 32 °C."),
    Step(56, "host=edge-04.filesystem=/var", "disk.full", Major, "File system is 84 % used; the threshold is 80 %."),
];

pub(super) async fn demo(output: &Output, client: &Client, args: &DemoArgs) -> Outcome {
    if args.stop { stop(output, client).await } else { play(output, client, args.length).await }
}

async fn play(output: &Output, client: &Client, length: Duration) -> Outcome {
    let begun = Instant::now();
    if !output.json {
        output.line(&format!(
            "The story takes {}; look at the page, or run `klaxon alarms watch`.",
            humantime::format_duration(length)
        ))?;
    }
    for step in &STORY {
        let at = length * step.0 / PARTS;
        tokio::select! {
            () = sleep_until(begun + at) => {}
            _ = tokio::signal::ctrl_c() => {
                remark("The story ends here; `klaxon demo --stop` removes what it has raised.");
                return Ok(());
            }
        }
        tell(output, client, step, at).await?;
    }
    if !output.json {
        output.line("Some of it is left standing. `klaxon demo --stop` removes it.")?;
    }
    Ok(())
}

async fn tell(output: &Output, client: &Client, Step(_, resource, alarm_type, severity, text): &Step, at: Duration) -> Outcome {
    let event = json!({
        "resource": format!("{ROOT}.{resource}"),
        "alarm_type": alarm_type,
        "severity": severity,
        "text": text,
        "producer": PRODUCER,
        "attributes": { "demo": "true" },
    });
    let answer = client.post("/events", &event).await?.good()?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let word = match severity {
        Cleared => output.paint(Style::Good, "cleared "),
        other => {
            let severity = other.severity();
            let word = severity.map_or("", klaxon_schemas::severity::Severity::as_str);
            output.paint(severity.map_or(Style::Plain, Style::Severity), &format!("{word:<8}"))
        }
    };
    Ok(output.line(&format!("{:>3} s  {word}  {alarm_type:<24}  {resource}: {text}", at.as_secs()))?)
}

async fn stop(output: &Output, client: &Client) -> Outcome {
    let order = json!({
        "action": "retire",
        "filter": { "resource": ROOT, "cleared": "any" },
        "note": "the demonstration is over",
    });
    let answer = client.post("/actions", &order).await?;
    if answer.status.as_u16() == 404 {
        return Ok(output.line("There is nothing to remove.")?);
    }
    if answer.status.as_u16() == 403 {
        let failure = answer.failure();
        return Err(Failure::new(Code::Failed, format!("{}; use the node's Unix socket", failure.message)));
    }
    let body = answer.good()?;
    if output.json {
        return Ok(output.json(&body)?);
    }
    let removed = body["changes"]
        .as_array()
        .map_or(0, |changes| changes.iter().filter(|change: &&Value| change["kind"] == "retired").count());
    Ok(output.line(&format!("{removed} alarms of the demonstration are removed."))?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use klaxon_schemas::catalogue::Catalogue;
    use klaxon_schemas::resource::Resource;

    use super::*;

    #[test]
    fn the_story_is_of_a_dozen_alarms_of_known_types() {
        let catalogue = Catalogue::built_in();
        for Step(part, resource, alarm_type, severity, _) in &STORY {
            assert!(*part < PARTS);
            let root = Resource::new(ROOT).expect("is one");
            assert!(root.contains(&Resource::new(&format!("{ROOT}.{resource}")).expect("is one")), "{resource}");
            let entry = catalogue.get(alarm_type).unwrap_or_else(|| panic!("{alarm_type} is not known"));
            assert!(
                severity.severity().is_none_or(|severity| entry.severities.contains(&severity)),
                "{alarm_type} {severity:?}"
            );
        }
        let keys: BTreeSet<_> = STORY.iter().map(|Step(_, resource, alarm_type, ..)| (resource, alarm_type)).collect();
        assert_eq!(keys.len(), 12);
        assert!(STORY.is_sorted_by_key(|step| step.0));
    }
}

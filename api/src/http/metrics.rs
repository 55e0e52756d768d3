//! Metrics in the Prometheus text format, version 0.0.4. Numbers are read when they are asked for; nothing is kept twice.

use std::fmt::{Display, Write as _};

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use klaxon_schemas::severity::Severity;
use klaxon_store::door::{DropReason, RejectReason, Tally};
use klaxon_store::{Counts, Info, SeverityCounts};

use super::Api;
use super::guard::Caller;
use super::openapi::Always;
use super::params::{NoParams, Query};
use super::problem::Problem;

/// The metrics of a node as text, in the making.
#[derive(Debug, Default)]
pub struct MetricsText(String);

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It grows and falls.
    Gauge,
}

impl MetricsText {
    /// Begins a metric: its name, what it is, and what it says.
    pub fn family(&mut self, name: &str, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes everything");
    }

    /// One value of the metric that was begun.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            self.0.push(if number == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").expect("a string takes everything");
    }

    /// A metric that has one value.
    pub fn single(&mut self, name: &str, kind: MetricKind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// Show metrics in the Prometheus text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "node",
    operation_id = "metrics",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"), Always)
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    let scope = caller.scope();
    let info = api.store().info();
    let (counts, heartbeats) = {
        let state = api.store().read();
        let heartbeats = state.heartbeats().keys().filter(|key| scope.includes(&key.site)).count();
        (state.counts().within(scope), heartbeats)
    };
    let mut text = MetricsText::default();
    text.family("klaxon_build_info", MetricKind::Gauge, "The program that runs; always 1.");
    text.sample("klaxon_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    super::alertmanager::metrics(&mut text);
    alarms(&mut text, &counts, heartbeats);
    // What is counted of the node itself concerns all sites.
    if scope.is_all() {
        node(&mut text, &api, &info);
    }
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, content_type)], text.0).into_response())
}

fn node(text: &mut MetricsText, api: &Api, info: &Info) {
    doors(text, api);
    journal(text, info);
    http(text, api);
    if let Some(receivers) = api.receivers() {
        super::receivers::metrics(text, receivers);
    }
    super::sites::metrics(text, api.uplinks());
    api.more_metrics(text);
}

/// Takes one count out of several.
type Pick = fn(&SeverityCounts) -> u64;

fn alarms(text: &mut MetricsText, counts: &Counts, heartbeats: usize) {
    let name = "klaxon_alarms_active";
    text.family(name, MetricKind::Gauge, "Alarms that are not cleared, by site and severity.");
    for (site, counts) in &counts.sites {
        for severity in Severity::ALL {
            text.sample(name, &[("site", site.as_str()), ("severity", severity.as_str())], counts.of(severity).total);
        }
    }
    let axes: [(&str, &str, Pick); 4] = [
        ("klaxon_alarms_acknowledged", "Alarms that are not cleared and are acknowledged.", |counts| counts.acknowledged),
        ("klaxon_alarms_shelved", "Alarms that are not cleared and are shelved.", |counts| counts.shelved),
        ("klaxon_alarms_suppressed", "Alarms that are not cleared and of a suppressed type.", |counts| counts.suppressed),
        ("klaxon_alarms_stale", "Alarms that are not cleared and whose reporter is silent.", |counts| counts.stale),
    ];
    for (name, help, pick) in axes {
        text.family(name, MetricKind::Gauge, help);
        for (site, counts) in &counts.sites {
            text.sample(name, &[("site", site.as_str())], counts.by_severity.iter().map(pick).sum::<u64>());
        }
    }
    text.single("klaxon_heartbeats", MetricKind::Gauge, "Promises to be heard from, kept or lost.", heartbeats);
    text.single("klaxon_alarms_cleared", MetricKind::Gauge, "Cleared alarms that are still kept.", counts.cleared());
}

/// Takes one count out of a door's totals.
type Count = fn(&(u64, Tally)) -> u64;

fn doors(text: &mut MetricsText, api: &Api) {
    let doors: Vec<_> = api.doors().map(|door| (door.name().as_str(), door.counts().totals())).collect();
    let counter = MetricKind::Counter;
    let counts: [(&str, &str, Count); 4] = [
        (
            "klaxon_door_events_received_total",
            "Events and actions of which it is known what became: journalled, rejected, dropped or duplicate.",
            |(received, _)| *received,
        ),
        ("klaxon_door_events_journalled_total", "Events and actions that are durable.", |(_, tally)| tally.journalled),
        ("klaxon_door_events_duplicate_total", "Events and actions that had come before.", |(_, tally)| tally.duplicate),
        (
            "klaxon_door_events_uncatalogued_total",
            "Journalled events of a type that the catalogue does not know.",
            |(_, tally)| tally.uncatalogued,
        ),
    ];
    for (name, help, count) in counts {
        text.family(name, counter, help);
        for (door, totals) in &doors {
            text.sample(name, &[("door", door)], count(totals));
        }
    }
    let name = "klaxon_door_events_rejected_total";
    text.family(name, counter, "Events and actions that cannot be used.");
    for (door, (_, tally)) in &doors {
        for reason in RejectReason::ALL {
            text.sample(name, &[("door", door), ("reason", reason.as_str())], tally.rejected[reason as usize]);
        }
    }
    let name = "klaxon_door_events_dropped_total";
    text.family(name, counter, "Events and actions that could be used and were refused; their sender was told.");
    for (door, (_, tally)) in &doors {
        for reason in DropReason::ALL {
            text.sample(name, &[("door", door), ("reason", reason.as_str())], tally.dropped[reason as usize]);
        }
    }
    text.single("klaxon_queue_waiting", MetricKind::Gauge, "Events and actions that wait to be journalled.", api.waiting());
}

fn journal(text: &mut MetricsText, info: &Info) {
    let gauge = MetricKind::Gauge;
    let help = "Keyed records that the engine keeps beside the alarms.";
    text.single("klaxon_engine_records", gauge, help, info.records);
    text.single("klaxon_journal_position", gauge, "The last committed record.", info.last_position);
    text.single("klaxon_journal_first_position", gauge, "The first record that is kept.", info.first_position);
    text.single("klaxon_journal_epoch", gauge, "The numbering of changes.", info.node.epoch);
    text.single("klaxon_journal_segments", gauge, "Files of the journal.", info.segments);
    text.single("klaxon_journal_bytes", gauge, "Size of the journal.", info.journal_bytes);
    let lag = info.last_position.0.saturating_sub(info.view_position.0);
    text.single("klaxon_view_lag_records", gauge, "Records that the view is behind the journal.", lag);
    text.single("klaxon_view_bytes", gauge, "Size of the view.", info.view_bytes);
    text.single(
        "klaxon_view_repairs_total",
        MetricKind::Counter,
        "How often the view was opened or built anew.",
        info.view_repairs,
    );
    text.single("klaxon_journal_syncs_total", MetricKind::Counter, "Frames of the journal synced.", info.syncs);
    let seconds = info.sync_time.as_secs_f64();
    text.single("klaxon_journal_sync_seconds_total", MetricKind::Counter, "Time that these syncs took.", seconds);
    if let Some(free) = info.free_bytes {
        text.single("klaxon_store_free_bytes", gauge, "Free space where the store is.", free);
    }
    let watermark = info.free_space_watermark_bytes;
    text.single("klaxon_store_free_watermark_bytes", gauge, "Free space below which intake is refused.", watermark);
}

fn http(text: &mut MetricsText, api: &Api) {
    text.single("klaxon_stream_subscribers", MetricKind::Gauge, "Streams of changes.", api.subscriber_count());
    let (by_class, took) = api.responses().totals();
    let name = "klaxon_http_responses_total";
    text.family(name, MetricKind::Counter, "Answers, by the first digit of their status.");
    for (status, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(by_class) {
        text.sample(name, &[("status", status)], count);
    }
    let help = "Listeners where whoever reaches them may read and report (insecure = true).";
    text.single("klaxon_http_listeners_insecure", MetricKind::Gauge, help, api.insecure_listeners());
    let help = "Connections that were closed because their host had as many as it may have.";
    text.single("klaxon_http_connections_refused_total", MetricKind::Counter, help, api.responses().turned_away());
    let (unknown, forbidden) = api.denials().totals();
    let name = "klaxon_http_denied_total";
    text.family(
        name,
        MetricKind::Counter,
        "Requests that were turned away, because of what they showed or of what they asked for.",
    );
    text.sample(name, &[("reason", "unknown-token")], unknown);
    text.sample(name, &[("reason", "not-allowed")], forbidden);
    let help = "How long all answers took to begin.";
    text.single("klaxon_http_response_seconds_total", MetricKind::Counter, help, took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = MetricsText::default();
        text.family("x_total", MetricKind::Counter, "A thing.");
        text.sample("x_total", &[("a", "q\"\\\n"), ("b", "")], 7);
        text.sample("x_total", &[], 1.5);
        assert_eq!(
            text.0,
            "# HELP x_total A thing.\n# TYPE x_total counter\nx_total{a=\"q\\\"\\\\\\n\",b=\"\"} 7\nx_total 1.5\n"
        );
    }
}

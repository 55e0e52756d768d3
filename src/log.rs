//! What the program says of itself, to standard error: text for people, JSON for collectors. The level can be changed while
//! it runs.

use std::io::IsTerminal as _;

use klaxon_snmp::Refusals;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

use crate::config::{Level, LogConfig, LogFormat};

/// The view's engine says what it does at every step; only what is wrong there is of interest. The trap decoder warns of every
/// oddity in every datagram: those are kept with the event, and a flood of garbage must not become a flood of lines. What a client
/// of SNMP could not deliver is told by the receiver that it is for. The client of the brokers tells of each of its connections, again
/// and again while a broker is away: whoever asked it says what that means, once.
const QUIET: &str = "fjall=warn,lsm_tree=warn,async_snmp=error,async_snmp::client=off,rdkafka=off,librdkafka=off";

/// Changes the level of the running log, and knows what was counted instead of written.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    refusals: Refusals,
}

/// Starts the log; once in a process. `KLAXON_LOG`, in the syntax of `RUST_LOG`, goes before the configured level.
pub fn init(config: &LogConfig) -> anyhow::Result<LogHandle> {
    let (filter, handle) = reload::Layer::new(filter(config.level));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Text => lines.with_target(false).with_ansi(std::io::stderr().is_terminal() && !no_color()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    };
    let refusals = Refusals::default();
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(refusals.layer()).try_init()?;
    Ok(LogHandle { filter: handle, refusals })
}

impl LogHandle {
    /// The level from here on.
    pub fn set_level(&self, level: Level) {
        // It fails only when the subscriber is gone, and then nobody reads the log.
        let _ = self.filter.reload(filter(level));
    }

    /// Refused SNMP requests.
    pub fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }
}

fn filter(level: Level) -> EnvFilter {
    let wanted = std::env::var("KLAXON_LOG").unwrap_or_default();
    if wanted.is_empty() { EnvFilter::new(format!("{},{QUIET}", level.as_str())) } else { EnvFilter::new(wanted) }
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

//! What the library refuses without counting it: it only says so, to whoever listens to its log.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Who says it.
const TARGET: &str = "async_snmp::agent";

/// What was refused. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    community: AtomicU64,
    access: AtomicU64,
    unsent: AtomicU64,
    broken: AtomicU64,
}

impl Refusals {
    /// What hears of refusals. It counts, and lets nothing through to anybody else; without it in the log's subscriber these
    /// counts stay at zero.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        Listener(self.clone()).with_filter(OfAgent)
    }

    /// Requests of a community that is not taken.
    pub fn community(&self) -> u64 {
        self.0.community.load(Ordering::Relaxed)
    }

    /// Requests of somebody known who may not do that, or not without more protection.
    pub fn access(&self) -> u64 {
        self.0.access.load(Ordering::Relaxed)
    }

    /// Responses that could not be sent.
    pub fn unsent(&self) -> u64 {
        self.0.unsent.load(Ordering::Relaxed)
    }

    /// Requests that ended otherwise than with a response: what handles them broke.
    pub fn broken(&self) -> u64 {
        self.0.broken.load(Ordering::Relaxed)
    }
}

struct Listener(Refusals);

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let Counts { community, access, unsent, broken } = &*self.0.0;
        let count = match message.0.as_str() {
            "invalid community string" => community,
            "failed to send response" => unsent,
            "request task failed" => broken,
            text if text.starts_with("VACM ") => access,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

struct OfAgent;

impl<S> Filter<S> for OfAgent {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.is_event() && metadata.target() == TARGET && *metadata.level() <= Level::DEBUG
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        let is_of_agent = metadata.is_event() && metadata.target() == TARGET && *metadata.level() <= Level::DEBUG;
        if is_of_agent { tracing::subscriber::Interest::always() } else { tracing::subscriber::Interest::never() }
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::DEBUG)
    }
}

/// The event's constant phrase.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

//! Faults that tests inject into a node. Only a build with debug assertions has them; in a release build there is nothing.

use klaxon_schemas::entry::Entry;

/// Breaks the engine on reports of the type that `KLAXON_FAULT_PANIC_TYPE` names.
#[cfg(debug_assertions)]
pub(crate) fn break_on(entry: &Entry) {
    use std::sync::OnceLock;
    static BREAKS: OnceLock<Option<String>> = OnceLock::new();
    let breaks = BREAKS.get_or_init(|| std::env::var("KLAXON_FAULT_PANIC_TYPE").ok());
    if let (Some(breaks), klaxon_schemas::entry::EntryKind::Event(event)) = (breaks, &entry.kind)
        && event.key.alarm_type.as_str() == breaks
    {
        panic!("injected fault: {breaks}");
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) fn break_on(_entry: &Entry) {}

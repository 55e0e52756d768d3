//! What the loops that run an engine have in common.

use klaxon_schemas::names::Text;
use klaxon_store::Results;

/// What the engine made, as the store takes it.
pub(crate) fn committed(results: klaxon_correlate::Results) -> Results {
    let klaxon_correlate::Results { changes, touched, puts, cursor } = results;
    Results { changes, alarms: Vec::new(), touched, puts, cursor }
}

/// The words with which it broke.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> Text {
    let words = payload
        .downcast_ref::<&str>()
        .map(|words| (*words).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it does not say why".to_owned());
    Text::lossy(&words).unwrap_or_else(|_| Text::new("it does not say why").expect("printable"))
}

//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use klaxon_schemas::time::Timestamp;

/// What it says; the beginning of 1970 if it was set before that.
pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)).unwrap_or_default()
}

//! HTTP: events in, alarms, history and streams out

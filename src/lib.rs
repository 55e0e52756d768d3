//! Klaxon, the fault and alarm manager: what wires the crates together.
//!
//! * [`config`]: the settings, checked once,
//! * [`log`]: what the program says of itself,
//! * [`cli`]: what a person types.

pub mod cli;
pub mod config;
pub mod log;

//! Klaxon, the fault and alarm manager: what wires the crates together.
//!
//! * [`app`]: the life of a node: build, run, drain,
//! * [`follow`]: the one loop that applies what came in and commits what followed, with [`clock`] and [`own`],
//! * `loops`: what follows the journal, wherever that is,
//! * `correlator` and `replica` (with the feature `kafka`): the same where the journal is in a Kafka, in two halves, and
//!   `notifiers`: who tells whom there; `topics`: what has to be so before any of them begins,
//! * [`uplink`]: this node as one below another,
//! * [`config`]: the settings, checked once,
//! * [`log`]: what the program says of itself,
//! * [`cli`]: what a person types.

mod agent;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(feature = "kafka")]
pub mod correlator;
mod engine;
mod faults;
pub mod follow;
#[cfg(feature = "kafka")]
pub mod held;
pub mod log;
mod loops;
#[cfg(feature = "kafka")]
pub mod notifiers;
pub mod own;
#[cfg(feature = "kafka")]
pub mod replica;
#[cfg(feature = "kafka")]
pub mod topics;
pub mod uplink;

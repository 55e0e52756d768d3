//! `klaxon site`: this node among others.

use clap::Subcommand;

use super::uplink::JoinArgs;

/// What is said of sites.
#[derive(Debug, Subcommand)]
pub(super) enum SiteCommand {
    /// Leave the node above for another one; the old one is told
    Rehome(JoinArgs),
}

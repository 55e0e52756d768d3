//! `klaxon snmp`: what a manager needs to know of the node's SNMP. No node is asked.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use klaxon_api::agent::{mib, oids::Root};

use super::failure::{Code, Failure, Outcome};
use super::output::Output;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum SnmpCommand {
    /// Print KLAXON-ALARM-MIB for a manager, with the root that is configured
    Mib(MibArgs),
}

#[derive(Debug, Args)]
pub(super) struct MibArgs {
    /// The root, as numbers; without it that of the configuration, or the default
    #[arg(long, value_name = "OID", conflicts_with = "config")]
    root: Option<Root>,
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn snmp(output: &Output, command: &SnmpCommand) -> Outcome {
    let SnmpCommand::Mib(args) = command;
    let root = match (&args.root, &args.config) {
        (Some(root), _) => root.clone(),
        (None, Some(file)) => Config::load(file).map_err(|error| Failure::of(Code::Usage, &error))?.snmp.root_oid,
        (None, None) => Root::default(),
    };
    if output.json {
        return Ok(output.json(&serde_json::json!({ "module": "KLAXON-ALARM-MIB", "root": root, "text": mib(&root) }))?);
    }
    Ok(output.text(&mib(&root))?)
}

//! `klaxon catalogue`: which types of alarms are known, and where others come from.

mod starlingx;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use klaxon_schemas::catalogue::{Affecting, Catalogue, CatalogueFile, TypeEntry};
use serde_json::{Value, json};

use super::alarms::{read, rows};
use super::client::{Client, Query, percent};
use super::failure::{Code, Failure, Outcome};
use super::output::{Output, Style, remark};
use super::table::{Cell, Column, Table};
use super::{Whom, find, wait};
use crate::config::catalogue::read as read_file;

/// The largest `events.yaml`.
const YAML_BYTES_MAX: u64 = 16 << 20;

/// The types of alarms.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CatalogueArgs {
    #[command(subcommand)]
    command: Option<CatalogueCommand>,
}

#[derive(Debug, Subcommand)]
enum CatalogueCommand {
    /// List the types that a node knows
    List,
    /// Tell what a node knows of one type
    Show {
        /// Its id, or the one by which StarlingX knows it
        id: String,
    },
    /// Check files of types as `[catalogue] files` names them, together with what comes with the program
    Check {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Make such a file of StarlingX's events.yaml
    #[command(after_help = "\
Example:
  klaxon catalogue import-starlingx events.yaml --output /etc/klaxon/starlingx.toml
and in klaxon.toml:
  [catalogue]
  files = [\"/etc/klaxon/starlingx.toml\"]")]
    ImportStarlingx {
        /// StarlingX's file
        file: PathBuf,
        /// Where the types are written to [without it: standard output]
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
}

/// Carries the command out.
pub(super) fn catalogue(output: &Output, node: &Whom, args: &CatalogueArgs) -> Outcome {
    match &args.command {
        None | Some(CatalogueCommand::List) => wait(async { list(output, &find(node).await?).await }),
        Some(CatalogueCommand::Show { id }) => wait(async { show(output, &find(node).await?, id).await }),
        Some(CatalogueCommand::Check { files }) => check(output, files),
        Some(CatalogueCommand::ImportStarlingx { file, output: to }) => import(output, file, to.as_deref()),
    }
}

async fn list(output: &Output, client: &Client) -> Outcome {
    let mut answer = client.get("/catalogue", &Query::default()).await?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let types: Vec<TypeEntry> = read(answer["types"].take())?;
    let columns = ["TYPE", "STARLINGX", "SEVERITIES"].map(Column::left);
    let columns: Vec<_> = columns.into_iter().chain([Column::text("TITLE")]).collect();
    let mut table = Table::new(&columns);
    for entry in &types {
        let severities = if entry.is_log() { Cell::new(Style::Dim, "log event") } else { severities(entry).into() };
        let starlingx = entry.starlingx_id.as_deref().unwrap_or_default();
        table.row(vec![(&*entry.id).into(), starlingx.into(), severities, (&*entry.title).into()]);
    }
    rows(output, &table, "No types are known.")
}

fn severities(entry: &TypeEntry) -> String {
    match entry.severities[..] {
        [] => String::new(),
        [one] => one.as_str().to_owned(),
        [least, .., most] => format!("{} to {}", least.as_str(), most.as_str()),
    }
}

async fn show(output: &Output, client: &Client, id: &str) -> Outcome {
    let answer = client.get(&format!("/catalogue/{}", percent(id)), &Query::default()).await?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let entry: TypeEntry = read(answer)?;
    output.line(&output.paint(Style::Bold, &format!("{}: {}", entry.id, entry.title)))?;
    let row = |name: &str, value: &str| if value.is_empty() { Ok(()) } else { output.line(&format!("  {name:<18}  {value}")) };
    row("StarlingX", entry.starlingx_id.as_deref().unwrap_or_default())?;
    row("severities", &severities(&entry))?;
    row("event type", word(&json!(entry.event_type)))?;
    row("probable cause", &entry.probable_cause)?;
    row("ends", if entry.is_log() { "at once: a log event" } else { "" })?;
    row("ends after", &entry.lifetime_s.map(|lifetime| format!("{} s", lifetime.seconds())).unwrap_or_default())?;
    row("what it means", &entry.text)?;
    row("what to do", &entry.repair_action)?;
    row("thresholds", entry.thresholds.as_deref().unwrap_or_default())?;
    row("runbook", entry.runbook.as_deref().unwrap_or_default())?;
    for form in &entry.resources {
        row("about", form)?;
    }
    row("service", affected(entry.service_affecting))?;
    let from = |affecting: Option<Affecting>| affecting.map(|affecting| word(&json!(affecting)).to_owned()).unwrap_or_default();
    row("hinders management", &from(entry.management_affecting))?;
    row("degrades its host", &from(entry.degrade_affecting))?;
    for (severity, variant) in &entry.by_severity {
        let name = severity.as_str();
        row(name, variant.text.as_deref().unwrap_or_default())?;
        row(name, variant.repair_action.as_deref().unwrap_or_default())?;
        row(name, affected(variant.service_affecting))?;
    }
    Ok(())
}

fn affected(is: Option<bool>) -> &'static str {
    is.map_or("", |is| if is { "affected" } else { "not affected" })
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn check(output: &Output, paths: &[PathBuf]) -> Outcome {
    let files: Result<Vec<CatalogueFile>, String> = paths.iter().map(read_file).collect();
    let files = files.map_err(|error| Failure::new(Code::Usage, error))?;
    let types: usize = files.iter().map(|file| file.alarm_type.len()).sum();
    let catalogue = Catalogue::built_in().with(files).map_err(|error| Failure::of(Code::Usage, &error))?;
    let all = catalogue.iter().count();
    if output.json {
        return Ok(output.json(&json!({ "valid": true, "types": types, "with_built_in": all }))?);
    }
    Ok(output.line(&format!("{types} types; {all} with what comes with the program"))?)
}

fn import(output: &Output, file: &Path, to: Option<&Path>) -> Outcome {
    let failed = |error: std::io::Error| Failure::new(Code::Usage, format!("cannot read {}: {error}", file.display()));
    let bytes = std::fs::metadata(file).map_err(failed)?.len();
    if bytes > YAML_BYTES_MAX {
        let message = format!("{} has {bytes} bytes, at most {YAML_BYTES_MAX} are read", file.display());
        return Err(Failure::new(Code::Usage, message));
    }
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let wrong = |error: String| Failure::new(Code::Usage, format!("{}: {error}", file.display()));
    let imported = starlingx::import(&text).map_err(wrong)?;
    // What is written can be used.
    Catalogue::built_in().with(vec![imported.file.clone()]).map_err(|error| wrong(error.to_string()))?;
    for said in &imported.remarks {
        remark(&format!("klaxon: {}: {said}", file.display()));
    }
    let (alarms, logs) = (imported.alarms, imported.logs);
    let text = format!(
        "# {alarms} alarms and {logs} log events of StarlingX, made by `klaxon catalogue import-starlingx`. [catalogue] files names it.\n\n{}",
        imported.file.to_toml()
    );
    match to {
        None => output.text(&text)?,
        Some(to) => std::fs::write(to, text)
            .map_err(|error| Failure::new(Code::Failed, format!("cannot write {}: {error}", to.display())))?,
    }
    remark(&format!("klaxon: {alarms} alarms and {logs} log events"));
    Ok(())
}

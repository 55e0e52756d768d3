//! `klaxon store`: what is done to the files of a node, running or not; and the list of a node that will not start.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use klaxon_api::agent::INDEXES_FILE;
use klaxon_schemas::ids::Position;
use klaxon_schemas::wire::v1;
use klaxon_store::backup::{BackupError, OtherFile};
use klaxon_store::offline::{self, OfflineError};
use klaxon_store::{AlarmQuery, AlarmSort, Cleared, OpenError, Order as StoreOrder, State, backup};
use serde_json::json;

use super::alarms::{Order, Sort};
use super::failure::{Code, Failure, Outcome};
use super::filter::{Filter, Whether};
use super::output::{Output, remark};
use super::time::Moment;
use crate::config::Size;

/// Where a node without configuration has its store.
const DIR_DEFAULT: &str = "./klaxon-data";

/// What a node keeps beside its journal: who it is in SNMP, and the rows that alarms have in its tables.
const OTHER_FILES: [OtherFile; 2] = [
    OtherFile { name: klaxon_snmp::ENGINE_FILE, restored: klaxon_snmp::restored },
    OtherFile { name: INDEXES_FILE, restored: |content| content },
];

/// What is done.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Read everything and check it; changes nothing
    Verify {
        /// The store's folder
        #[arg(default_value = DIR_DEFAULT)]
        dir: PathBuf,
    },
    /// Copy the store as of one moment, also while a node runs on it; with the node's SNMP engine id, but without its configuration
    Backup {
        /// The store's folder
        #[arg(long, value_name = "DIR", default_value = DIR_DEFAULT)]
        data: PathBuf,
        /// Where to; must not be there yet
        to: PathBuf,
    },
    /// Make a store of a backup, of the same node, also in SNMP; a new numbering of changes begins with it
    Restore {
        /// The backup
        from: PathBuf,
        /// The folder of the new store; must not hold one
        #[arg(long, value_name = "DIR", default_value = DIR_DEFAULT)]
        data: PathBuf,
    },
    /// Tell what a store holds; changes nothing
    Info {
        /// The store's folder
        #[arg(default_value = DIR_DEFAULT)]
        dir: PathBuf,
    },
    /// Write every record, one JSON text a line
    Export {
        /// The store's folder
        #[arg(long, value_name = "DIR", default_value = DIR_DEFAULT)]
        data: PathBuf,
        /// From this position on
        #[arg(long, value_name = "POSITION", default_value_t = 1)]
        from: u64,
        /// The file to write; - is standard output
        #[arg(default_value = "-")]
        to: PathBuf,
    },
    /// Build the view and the indexes anew from the journal; the node must not run
    Rebuild {
        /// The store's folder
        #[arg(default_value = DIR_DEFAULT)]
        dir: PathBuf,
    },
}

pub(super) fn store(output: &Output, command: StoreCommand) -> Outcome {
    match command {
        StoreCommand::Verify { dir } => verify(output, &dir),
        StoreCommand::Info { dir } => info(output, &dir),
        StoreCommand::Export { data, from, to } => export(&data, Position(from), &to),
        StoreCommand::Backup { data, to } => {
            let report = backup::backup(&data, &to, &OTHER_FILES).map_err(|error| backup_failed(&error))?;
            copied(output, &format!("{} is backed up in {}", data.display(), to.display()), &report)
        }
        StoreCommand::Restore { from, data } => {
            let report = backup::restore(&from, &data, &OTHER_FILES).map_err(|error| backup_failed(&error))?;
            copied(output, &format!("{} is restored from {}; a new epoch begins", data.display(), from.display()), &report)
        }
        StoreCommand::Rebuild { dir } => {
            let report = backup::rebuild(&dir).map_err(|error| backup_failed(&error))?;
            if output.json {
                let answer = json!({ "rebuilt": dir, "replayed_records": report.replayed_records, "notes": report.notes });
                return Ok(output.json(&answer)?);
            }
            notes(&report.notes);
            let line = format!("The view of {} is built anew from {} records", dir.display(), report.replayed_records);
            Ok(output.line(&line)?)
        }
    }
}

fn verify(output: &Output, dir: &Path) -> Outcome {
    let report = offline::verify(dir).map_err(|error| offline_failed(&error))?;
    let torn = report.torn_tail.as_ref().map(|torn| (torn.segment.clone(), torn.offset, torn.bytes));
    if output.json {
        return Ok(output.json(&json!({
            "dir": dir,
            "sound": true,
            "segments": report.segments,
            "bytes": report.bytes,
            "frames": report.frames,
            "records": report.records,
            "first_position": report.first_position,
            "last_position": report.last_position,
            "alarms": report.alarms,
            "state_records": report.state_records,
            "torn_tail": torn.map(|(segment, offset, bytes)| json!({ "segment": segment, "offset": offset, "bytes": bytes })),
            "bad_indexes": report.bad_indexes,
            "notes": report.notes,
        }))?);
    }
    output.line(&format!(
        "{} is sound: {} in {} segments, {} frames, records {} to {}, {} alarms",
        dir.display(),
        Size(report.bytes),
        report.segments,
        report.frames,
        report.first_position,
        report.last_position,
        report.alarms
    ))?;
    if let Some((segment, offset, bytes)) = torn {
        remark(&format!(
            "The last frame in {} is not whole ({bytes} bytes at {offset}): a node is writing it, or crashed in it. Nobody was told \
             of it; the next start cuts it off.",
            segment.display()
        ));
    }
    for index in &report.bad_indexes {
        remark(&format!("The index {} is missing or damaged; it is built anew when it is needed.", index.display()));
    }
    notes(&report.notes);
    Ok(())
}

fn info(output: &Output, dir: &Path) -> Outcome {
    let state = read_state(dir)?;
    let cursor = state.cursor();
    let counts = state.counts();
    let active: u64 = counts.sites.values().flat_map(|site| &site.by_severity).map(|severity| severity.total).sum();
    let node = node_json(dir);
    // The identity is ahead of the journal from a restore until the next start.
    let epoch = node["epoch"].as_u64().unwrap_or(cursor.epoch.0);
    let (segments, bytes) = journal_size(dir)?;
    let view = offline::view_engine(dir).map(klaxon_store::ViewEngine::as_str);
    if output.json {
        return Ok(output.json(&json!({
            "dir": dir,
            "node": node,
            "epoch": epoch,
            "segments": segments,
            "journal_bytes": bytes,
            "view": view,
            "last_seq": cursor.last_seq,
            "position": state.position(),
            "applied": cursor.applied,
            "active": active,
            "cleared": counts.cleared(),
            "sites": counts.sites.len(),
        }))?);
    }
    let text = |key: &str| node[key].as_str().unwrap_or("unknown").to_owned();
    let lines = [
        ("folder", dir.display().to_string()),
        ("node", text("node_id")),
        ("made", text("created_at")),
        ("epoch", if epoch == cursor.epoch.0 { epoch.to_string() } else { format!("{epoch}, begins with the next start") }),
        ("changes", format!("{} in epoch {}", cursor.last_seq, cursor.epoch)),
        ("journal", format!("{} in {segments} segments", Size(bytes))),
        ("view", view.map_or("none, the next start builds it".to_owned(), |engine| format!("kept by {engine}"))),
        ("position", format!("{}, applied up to {}", state.position(), cursor.applied)),
        ("alarms", format!("{active} active, {} cleared, of {} sites", counts.cleared(), counts.sites.len())),
    ];
    for (label, value) in lines {
        output.line(&format!("{label:<10}{value}"))?;
    }
    Ok(())
}

/// Whose store it is, as far as its folder says.
fn node_json(dir: &Path) -> serde_json::Value {
    let text = std::fs::read(dir.join("node.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// How many segments there are, and their size.
fn journal_size(dir: &Path) -> Outcome<(usize, u64)> {
    let journal = dir.join("journal");
    let failed = |error: io::Error| Failure::new(Code::Failed, format!("cannot read {}: {error}", journal.display()));
    let (mut segments, mut bytes) = (0, 0);
    for file in std::fs::read_dir(&journal).map_err(failed)? {
        let file = file.map_err(failed)?;
        if file.path().extension().is_some_and(|end| end == "seg") {
            segments += 1;
            // Retention may have removed it meanwhile.
            bytes += file.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    Ok((segments, bytes))
}

fn export(dir: &Path, from: Position, to: &Path) -> Outcome {
    let count = if to.as_os_str() == "-" {
        let mut out = BufWriter::new(io::stdout().lock());
        let count = offline::export(dir, from, &mut out).map_err(|error| offline_failed(&error))?;
        out.flush()?;
        count
    } else {
        let failed = |error: io::Error| Failure::new(Code::Failed, format!("cannot write {}: {error}", to.display()));
        let mut out = BufWriter::new(File::create_new(to).map_err(failed)?);
        let count = offline::export(dir, from, &mut out).map_err(|error| offline_failed(&error))?;
        out.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
        count
    };
    remark(&format!("{count} records"));
    Ok(())
}

fn copied(output: &Output, done: &str, report: &backup::BackupReport) -> Outcome {
    if output.json {
        return Ok(output.json(&json!({
            "segments": report.segments,
            "bytes": report.bytes,
            "first_position": report.first_position,
            "last_position": report.last_position,
            "epoch": report.epoch,
        }))?);
    }
    let (first, last) = (report.first_position, report.last_position);
    Ok(output.line(&format!("{done}: {} in {} segments, records {first} to {last}", Size(report.bytes), report.segments))?)
}

fn notes(notes: &[String]) {
    for note in notes {
        remark(note);
    }
}

/// The alarms in the store of a node that does not run.
pub(super) fn alarms(
    dir: &Path,
    filter: &Filter,
    (sort, order): (Option<Sort>, Option<Order>),
    limit: usize,
) -> Outcome<Vec<v1::Alarm>> {
    let state = read_state(dir)?;
    let mut query = AlarmQuery { limit: limit.min(klaxon_store::ALARMS_LIMIT_MAX), ..query(filter) };
    query.sort = sort.map_or(AlarmSort::default(), store_sort);
    query.order = order.map_or(StoreOrder::Descending, |order| match order {
        Order::Asc => StoreOrder::Ascending,
        Order::Desc => StoreOrder::Descending,
    });
    let mut alarms = Vec::new();
    loop {
        let page = state.list(&query);
        let picked = page.items.iter().filter(|alarm| filter.severity.is_none_or(|severity| alarm.severity == severity));
        alarms.extend(picked.map(|alarm| v1::Alarm {
            stale: state.stale(alarm),
            ..v1::Alarm::shown(alarm, state.is_suppressed(&alarm.key.alarm_type))
        }));
        query.after = page.next;
        if query.after.is_none() || alarms.len() >= limit {
            alarms.truncate(limit);
            return Ok(alarms);
        }
    }
}

fn query(filter: &Filter) -> AlarmQuery {
    let asked = |whether: Option<Whether>| match whether {
        Some(Whether::True) => Some(true),
        Some(Whether::False) => Some(false),
        Some(Whether::Any) | None => None,
    };
    AlarmQuery {
        site: filter.site.clone(),
        resource: filter.resource.clone(),
        alarm_type: filter.alarm_type.clone(),
        severity_min: filter.min_severity.or(filter.severity),
        cleared: match filter.cleared {
            None | Some(Whether::False) => Cleared::No,
            Some(Whether::True) => Cleared::Yes,
            Some(Whether::Any) => Cleared::Both,
        },
        acknowledged: asked(filter.acknowledged),
        shelved: asked(filter.shelved),
        suppressed: asked(filter.suppressed),
        stale: asked(filter.stale),
        text: filter.text.clone(),
        raised_from: filter.raised_after.map(Moment::past),
        raised_until: filter.raised_before.map(Moment::past),
        changed_from: filter.changed_after.map(Moment::past),
        changed_until: filter.changed_before.map(Moment::past),
        ..AlarmQuery::default()
    }
}

fn store_sort(sort: Sort) -> AlarmSort {
    match sort {
        Sort::Severity => AlarmSort::Severity,
        Sort::RaisedAt => AlarmSort::RaisedAt,
        Sort::ChangedAt => AlarmSort::ChangedAt,
        Sort::Resource => AlarmSort::Resource,
        Sort::AlarmType => AlarmSort::AlarmType,
        Sort::Site => AlarmSort::Site,
        Sort::Count => AlarmSort::Count,
    }
}

fn read_state(dir: &Path) -> Outcome<State> {
    offline::read_state(dir).map_err(|error| offline_failed(&error))
}

fn offline_failed(error: &OfflineError) -> Failure {
    match error {
        OfflineError::NoStore { .. } => Failure::of(Code::NotFound, error),
        OfflineError::Write(source) if source.kind() == io::ErrorKind::BrokenPipe => {
            Failure { reader_gone: true, ..Failure::told() }
        }
        _ => Failure::of(Code::Failed, error),
    }
}

fn backup_failed(error: &BackupError) -> Failure {
    match error {
        BackupError::Source(source) => offline_failed(source),
        BackupError::Open(OpenError::Locked { .. }) => {
            let failure = Failure::of(Code::Failed, error);
            Failure { message: format!("{}; stop that node first", failure.message), ..failure }
        }
        _ => Failure::of(Code::Failed, error),
    }
}

//! `klaxon token`: who may do what by showing which token.

use clap::{Args, Subcommand, ValueEnum};
use klaxon_schemas::names::{Actor, TokenName};
use klaxon_schemas::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::actions::duration;
use super::alarms::{read, rows};
use super::client::{Client, Query, percent};
use super::failure::Outcome;
use super::output::{Output, Style, remark};
use super::table::{Cell, Column, Table};
use super::time::{Moment, local};

/// The tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print it: it is told only now
    Create(CreateArgs),
    /// List the tokens, without what proves them
    List,
    /// Take a token back: it is good no longer
    Revoke {
        /// The token's name
        name: String,
    },
}

/// A token that is wanted.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Its name, which is the actor of what its bearer does
    name: String,
    /// What its bearer may do
    #[arg(long, value_enum)]
    role: RoleName,
    /// Only at this site; may be given more than once. At all sites, if absent
    #[arg(long)]
    site: Vec<String>,
    /// How long it is good, such as 90d; for good, if absent
    #[arg(long = "for", value_name = "TIME", value_parser = duration, conflicts_with = "until")]
    length: Option<Moment>,
    /// Until when it is good
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// What it is for
    #[arg(long)]
    note: Option<String>,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// See alarms and history
    Reader,
    /// See them, and act on them
    Operator,
    /// Report events and heartbeats, and see nothing
    Publisher,
    /// Everything
    Admin,
}

impl RoleName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
        }
    }
}

/// A token, as the node lists it.
#[derive(Debug, Deserialize)]
struct Row {
    name: TokenName,
    role: String,
    #[serde(default)]
    sites: Vec<String>,
    by: Actor,
    at: Timestamp,
    #[serde(default)]
    expires_at: Option<Timestamp>,
    expired: bool,
    #[serde(default)]
    note: Option<String>,
}

/// Carries the command out.
pub(super) async fn token(output: &Output, client: &Client, command: &TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create(args) => create(output, client, args).await,
        TokenCommand::List => list(output, client).await,
        TokenCommand::Revoke { name } => {
            let answer = client.delete(&format!("/tokens/{}", percent(name)), &Query::default()).await?.good()?;
            if output.json {
                return Ok(output.json(&answer)?);
            }
            Ok(output.line(&format!("{name} is good no longer"))?)
        }
    }
}

async fn create(output: &Output, client: &Client, args: &CreateArgs) -> Outcome {
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(args.name));
    body.insert("role".to_owned(), json!(args.role.as_str()));
    if !args.site.is_empty() {
        body.insert("sites".to_owned(), json!(args.site));
    }
    if let Some(end) = args.length.or(args.until).map(Moment::future) {
        body.insert("expires_at".to_owned(), json!(end));
    }
    if let Some(note) = &args.note {
        body.insert("note".to_owned(), json!(note));
    }
    let answer = client.post("/tokens", &Value::Object(body)).await?.good()?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    // The token alone, so that a script can take it.
    output.line(answer["token"].as_str().unwrap_or_default())?;
    remark(&format!("klaxon: {} is {}; keep the token, it is told only now", args.name, article(args.role)));
    Ok(())
}

fn article(role: RoleName) -> String {
    let article = if matches!(role, RoleName::Operator | RoleName::Admin) { "an" } else { "a" };
    format!("{article} {}", role.as_str())
}

async fn list(output: &Output, client: &Client) -> Outcome {
    let mut answer = client.get("/tokens", &Query::default()).await?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let tokens: Vec<Row> = read(answer["tokens"].take())?;
    let columns = ["NAME", "ROLE", "SITES", "GOOD UNTIL", "MADE", "BY"].map(Column::left);
    let columns: Vec<_> = columns.into_iter().chain([Column::text("NOTE")]).collect();
    let mut table = Table::new(&columns);
    for row in &tokens {
        let until = match (row.expires_at, row.expired) {
            (None, _) => Cell::new(Style::Dim, "for good"),
            (Some(end), true) => Cell::new(Style::Dim, format!("{}, over", local(end))),
            (Some(end), false) => local(end).into(),
        };
        let sites = if row.sites.is_empty() { Cell::new(Style::Dim, "all") } else { row.sites.join(", ").into() };
        let (note, made) = (row.note.as_deref().unwrap_or_default(), local(row.at));
        table.row(vec![(&*row.name).into(), (&*row.role).into(), sites, until, made.into(), (&*row.by).into(), note.into()]);
    }
    rows(output, &table, "There are no tokens.")
}

//! `klaxon join`, `klaxon site rehome`, `klaxon site leave` and `klaxon uplink`: the node above.

use std::fs::File;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use klaxon_schemas::time::Timestamp;
use klaxon_store::{OpenError, offline};
use serde::Deserialize;
use serde_json::json;

use super::alarms::read;
use super::client::{Answer, Client, Query};
use super::failure::{Code, Failure, Outcome};
use super::output::{Output, Style, printable};
use super::time::{age, now};
use crate::uplink::{Address, Kept, Token, give_to_owner};

/// Another node is to be above.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").args(["token", "token_file"]).required(true)),
    after_help = "\
The token is made at the other node: klaxon site add NAME. It is good once; the node then gets a credential and keeps it."
)]
pub(super) struct JoinArgs {
    /// Where it is: https://HOST[:PORT], or http://HOST:PORT on this host
    url: Address,
    /// The token; whoever may list processes sees it: better use a file
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// A file that holds the token; - for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The folder of the store of a node that is not running, in place of telling one that runs
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Another node is to be above, or the same one is somewhere else.
#[derive(Debug, Args)]
#[command(after_help = "\
To another node: the token is made there (klaxon site add NAME). The one that is left is told where this node went.

To the same node at another address, another name or port of it: without a token. This node then shows that address the \
credential that the node above gave it, and goes on there as if nothing had been. The certificate of who is there is checked as \
always, against uplink.ca_file or the system's authorities; whoever has one that holds sees the credential, so give an address \
that you are sure of. If another node is there, it refuses, and a token is needed.

Either way, the node that is above stays until this one has been let in; if it is not, all is as it was.")]
pub(super) struct RehomeArgs {
    /// Where it is: https://HOST[:PORT], or http://HOST:PORT on this host
    url: Address,
    /// The token; whoever may list processes sees it: better use a file
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the token; - for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// How the uplink stands, as the API has it.
#[derive(Debug, Deserialize)]
struct Shown {
    state: String,
    kind: String,
    url: Option<String>,
    name: Option<String>,
    parent: Option<String>,
    parent_version: Option<String>,
    since: Option<Timestamp>,
    last_error: Option<String>,
    last_error_at: Option<Timestamp>,
    next_try_at: Option<Timestamp>,
    position: u64,
    reached: Option<u64>,
    lag_records: Option<u64>,
    history_missing_records: Option<u64>,
    changes_sent: u64,
    history_sent: u64,
    connections: u64,
    sent_bytes: u64,
    received_bytes: u64,
    clock_offset_ms: Option<i64>,
    round_trip_ms: Option<i64>,
}

/// The token, from where it is said to be.
fn token_of(token: Option<&String>, file: Option<&PathBuf>) -> Outcome<Option<String>> {
    let text = match (token, file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => {
            let said =
                if file.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
            said.map_err(|error| Failure::new(Code::Usage, format!("cannot read {}: {error}", file.display())))?
        }
        (None, None) => return Ok(None),
    };
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::new(Code::Usage, "that is no token: one word is expected"));
    }
    Ok(Some(token.to_owned()))
}

impl JoinArgs {
    fn token(&self) -> Outcome<String> {
        let token = token_of(self.token.as_ref(), self.token_file.as_ref())?;
        token.ok_or_else(|| Failure::new(Code::Usage, "that is no token: one word is expected"))
    }

    /// Whether it is about the store of a node that does not run.
    pub(super) fn is_offline(&self) -> bool {
        self.data.is_some()
    }
}

/// Writes it for a node that does not run.
pub(super) fn join_offline(output: &Output, args: &JoinArgs) -> Outcome {
    let token = args.token()?;
    let Some(dir) = &args.data else { return Err(Failure::new(Code::Usage, "--data is missing")) };
    let failed = |error: &dyn std::fmt::Display| Failure::new(Code::Failed, error.to_string());
    if !dir.is_dir() {
        return Err(Failure::new(Code::Usage, format!("{} is no folder", dir.display())));
    }
    let (_held, made) = offline::hold(dir).map_err(|error| match error {
        OpenError::Locked { pid, .. } => {
            let message = format!("a node runs on {} (process {pid}); leave --data away, or stop it", dir.display());
            Failure::new(Code::Failed, message)
        }
        error => failed(&anyhow::Error::from(error).root_cause()),
    })?;
    for path in made {
        let given = File::open(&path).and_then(|file| give_to_owner(&file, dir));
        given.map_err(|error| failed(&format!("{}: {error}", path.display())))?;
    }
    let before = Kept::read(dir).map_err(|error| failed(&error))?;
    if let Some(kept) = before.as_ref().filter(|kept| kept.url != args.url && kept.leaving(now()).is_some()) {
        let message = format!("{} is above this node; start it and use klaxon site rehome, which tells that one", kept.url);
        return Err(Failure::new(Code::Failed, message));
    }
    let token = Token(token);
    let kept = match before {
        Some(before) => before.joined_anew(args.url.clone(), before.configured.clone(), token),
        None => Kept::joining(args.url.clone(), None, Some(token)),
    };
    kept.write(dir).map_err(|error| failed(&error))?;
    Ok(output.line(&format!("{} is joined when the node starts", args.url))?)
}

/// Tells a node that runs to join another one.
pub(super) async fn join(output: &Output, client: &Client, args: &JoinArgs) -> Outcome {
    let body = json!({ "url": args.url.to_string(), "token": args.token()? });
    let done = format!("{} is being joined", args.url);
    order(output, client, ("/uplink/join", &body), &done).await
}

/// Tells a node that runs to go to another one, or that the one above is somewhere else.
pub(super) async fn rehome(output: &Output, client: &Client, args: &RehomeArgs) -> Outcome {
    let token = token_of(args.token.as_ref(), args.token_file.as_ref())?;
    let done = match token {
        Some(_) => format!("{} is above now, or is being joined if none was", args.url),
        None => format!("{} is where the node above is from now on", args.url),
    };
    let mut body = json!({ "url": args.url.to_string() });
    if let Some(token) = token {
        body["token"] = token.into();
    }
    order(output, client, ("/uplink/rehome", &body), &done).await
}

async fn order(output: &Output, client: &Client, (path, body): (&str, &serde_json::Value), done: &str) -> Outcome {
    let answer = good(client.post(path, body).await?)?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    Ok(output.line(&format!("{done}; klaxon uplink tells how it goes"))?)
}

/// Tells a node that runs to have none above.
pub(super) async fn leave(output: &Output, client: &Client) -> Outcome {
    let answer = good(client.post("/uplink/leave", &json!({})).await?)?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    Ok(output.line("No node is above this one any more; the one that was is told when it is reached")?)
}

fn good(answer: Answer) -> Outcome<serde_json::Value> {
    if answer.status.as_u16() == 403 {
        let failure = answer.failure();
        return Err(Failure::new(Code::Failed, format!("{}; use the node's Unix socket", failure.message)));
    }
    answer.good()
}

/// `klaxon uplink`.
pub(super) async fn uplink(output: &Output, client: &Client) -> Outcome {
    let answer = client.get("/uplink/state", &Query::default()).await?;
    if output.json {
        return Ok(output.json(&answer)?);
    }
    let shown: Shown = read(answer)?;
    Ok(output.text(&told(output, &shown, now()))?)
}

fn told(output: &Output, shown: &Shown, now: Timestamp) -> String {
    let url = match &shown.url {
        None if shown.state == "off" => return "No node is above this one; klaxon join sets one.\n".to_owned(),
        None => "it is not known which node is above",
        Some(url) => url,
    };
    let style =
        if shown.state == "connected" { Style::Good } else { Style::Severity(klaxon_schemas::severity::Severity::Major) };
    let since = shown.since.map(|since| format!(" for {}", age(since, now))).unwrap_or_default();
    let mut text =
        format!("{}  {}{since}\n", output.paint(Style::Bold, &printable(url)), output.paint(style, &printable(&shown.state)));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<14}{}\n", printable(&value)));
    if let Some(parent) = &shown.parent {
        let version = shown.parent_version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
        line("parent", format!("{parent}{version}"));
    }
    let name = shown.name.as_ref().map(|name| format!(", known as {name}")).unwrap_or_default();
    line("this node", format!("{}{name}", shown.kind));
    match (shown.reached, shown.lag_records) {
        (Some(reached), Some(0)) => line("reached", format!("{reached}, all there is")),
        (Some(reached), Some(lag)) => line("reached", format!("{reached} of {}, {lag} records behind", shown.position)),
        _ => line("reached", format!("nothing yet of {} records", shown.position)),
    }
    if let Some(missing) = shown.history_missing_records.filter(|missing| *missing > 0) {
        line("history", format!("missing over {missing} records"));
    }
    line("sent", format!("{} live, {} as history", shown.changes_sent, shown.history_sent));
    line(
        "bytes",
        format!("{} sent, {} received, in {} connections", shown.sent_bytes, shown.received_bytes, shown.connections),
    );
    if let Some(offset) = shown.clock_offset_ms {
        let round_trip = shown.round_trip_ms.map(|ms| format!(", round trip {ms} ms")).unwrap_or_default();
        line("its clock", format!("{offset:+} ms against this one{round_trip}"));
    }
    if let Some(error) = &shown.last_error {
        let when = shown.last_error_at.map(|at| format!("{} ago: ", age(at, now))).unwrap_or_default();
        line("last error", format!("{when}{error}"));
    }
    if let Some(next) = shown.next_try_at.filter(|next| *next > now) {
        line("next try", format!("in {}", age(now, next)));
    }
    text
}

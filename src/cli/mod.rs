//! The command line: the tree of commands, and what runs each of them.

mod actions;
mod alarms;
mod capture;
mod catalogue;
mod client;
mod collect;
mod demo;
mod event;
mod failure;
mod filter;
mod heartbeat;
mod history;
mod import;
#[cfg(feature = "kafka")]
mod kafka;
mod man;
mod output;
mod ready;
mod receivers;
pub(crate) mod run;
mod show;
mod sites;
mod snmp;
mod store;
mod table;
mod time;
mod tokens;
mod trap;
mod uplink;
mod watch;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, DEFAULT_FILE};
use crate::uplink::Token;
use client::{Client, Pass};
use failure::{Code, EXIT_CODES, Failure, Outcome};
use klaxon_api::trust::ClientTls;
use output::{ColorChoice, Output, remark};

/// Keeps the alarms of many sites: events come in, alarms stand until they are cleared, and nothing acknowledged is lost.
#[derive(Debug, Parser)]
#[command(name = "klaxon", version, after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
struct Global {
    /// The node to speak with: https://HOST:PORT, http://HOST:PORT, or the path of its Unix socket
    #[arg(long, global = true, env = "KLAXON_NODE", value_name = "NODE", help_heading = "For every command")]
    node: Option<String>,
    /// The file with the token to show to the node that is named; KLAXON_TOKEN may hold the token itself
    #[arg(long, global = true, env = "KLAXON_TOKEN_FILE", value_name = "FILE", help_heading = "For every command")]
    token_file: Option<PathBuf>,
    /// The certificates (PEM) of who vouches for the node at https://; the system's, if absent
    #[arg(long, global = true, env = "KLAXON_CA_FILE", value_name = "FILE", help_heading = "For every command")]
    ca_file: Option<PathBuf>,
    /// Write JSON, as the API has it
    #[arg(long, global = true, help_heading = "For every command")]
    json: bool,
    /// When to colour: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true,
        value_name = "WHEN",
        help_heading = "For every command"
    )]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node, here and now
    Run(run::RunArgs),
    /// Check a configuration file
    Check {
        /// The file
        file: PathBuf,
    },
    /// List alarms, look at one, act on them
    Alarms(Box<alarms::AlarmsArgs>),
    /// Look back: what changed, newest first
    History(Box<history::HistoryArgs>),
    /// Report events
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Look into the types of alarms that are known; check files of them, make one of StarlingX's
    Catalogue(catalogue::CatalogueArgs),
    /// Take over alarms and history from another alarm manager
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Tell how the collectors are and what they see
    Collect(collect::CollectArgs),
    /// Play a story of a dozen alarms, all marked, over a minute
    Demo(demo::DemoArgs),
    /// Raise and clear an alarm that means nothing, to see that it arrives at a receiver
    Drill(receivers::DrillArgs),
    /// Say that a program is there, and promise to say so again: silence is an alarm
    Heartbeat(Box<heartbeat::HeartbeatArgs>),
    /// List who has promised to be heard from, and who is silent
    Heartbeats(heartbeat::HeartbeatsArgs),
    /// Tell why an alarm is as it is
    Why {
        /// The alarm's id, or its first digits (at least 4)
        id: String,
    },
    /// List who is told of alarms and how each stands; send notifications again
    Receivers(receivers::ReceiversArgs),
    /// Put this node below another one, which shows its alarms among those of others
    Join(uplink::JoinArgs),
    /// Tell how the node above stands, and what it lacks
    Uplink,
    /// List the nodes below this one and how each stands
    Sites(sites::SitesArgs),
    /// Let nodes below join, approve them, give them up
    #[command(subcommand)]
    Site(sites::SiteCommand),
    /// Say who may do what by showing which token
    #[command(subcommand)]
    Token(tokens::TokenCommand),
    /// Tell whether a node takes events; the exit code says it too
    Ready,
    /// Look into SNMP traps
    #[command(subcommand)]
    Trap(trap::TrapCommand),
    /// Verify, back up, restore, look into and rebuild the store
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Make and check the topics of a centre whose journal is in an Apache Kafka
    #[cfg(feature = "kafka")]
    #[command(subcommand)]
    Kafka(kafka::KafkaCommand),
    /// What a manager needs to know of the node's SNMP
    #[command(subcommand)]
    Snmp(snmp::SnmpCommand),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// The folder they go to
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every setting with its default and what it is for
    Default,
}

/// The program.
pub fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.reader_gone => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                remark(&format!("klaxon: {}", output::printable(&failure.message)));
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let output = Output::new(cli.global.json, cli.global.color);
    let node = Whom { node: cli.global.node, token_file: cli.global.token_file, ca_file: cli.global.ca_file };
    match cli.command {
        Command::Run(args) => run::run(args),
        Command::Check { file } => check(&output, &file),
        Command::Alarms(args) => alarms::alarms(&output, &node, *args),
        Command::History(args) => wait(async { history::history(&output, &find(&node).await?, &args).await }),
        Command::Event(event::EventCommand::Send(args)) => {
            wait(async { event::send(&output, &find(&node).await?, &args).await })
        }
        Command::Catalogue(args) => catalogue::catalogue(&output, &node, &args),
        Command::Import(import::ImportCommand::Fm(args)) => wait(async { import::fm(&output, &node, &args).await }),
        Command::Collect(args) => collect::collect(&output, &node, &args),
        Command::Demo(args) => wait(async { demo::demo(&output, &find(&node).await?, &args).await }),
        Command::Drill(args) => wait(async { receivers::drill(&output, &find(&node).await?, &args).await }),
        Command::Heartbeat(args) => wait(async { heartbeat::heartbeat(&output, &find(&node).await?, &args).await }),
        Command::Heartbeats(args) => wait(async { heartbeat::heartbeats(&output, &find(&node).await?, &args).await }),
        Command::Why { id } => wait(async { show::why(&output, &find(&node).await?, &id).await }),
        Command::Receivers(args) => wait(async { receivers::receivers(&output, &find(&node).await?, &args).await }),
        Command::Join(args) if args.is_offline() => uplink::join_offline(&output, &args),
        Command::Join(args) => wait(async { uplink::join(&output, &find(&node).await?, &args).await }),
        Command::Uplink => wait(async { uplink::uplink(&output, &find(&node).await?).await }),
        Command::Sites(args) => wait(async { sites::sites(&output, &find(&node).await?, &args).await }),
        Command::Site(command) => wait(async { sites::site(&output, &find(&node).await?, &command).await }),
        Command::Token(command) => wait(async { tokens::token(&output, &find(&node).await?, &command).await }),
        Command::Ready => wait(async { ready::ready(&output, &find(&node).await?).await }),
        Command::Trap(trap::TrapCommand::Explain(args)) => trap::explain(&output, &args),
        Command::Store(command) => store::store(&output, command),
        #[cfg(feature = "kafka")]
        Command::Kafka(command) => wait(async { kafka::kafka(&output, &command).await }),
        Command::Snmp(command) => snmp::snmp(&output, &command),
        Command::Config(ConfigCommand::Default) => Ok(output.text(DEFAULT_FILE)?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "klaxon", &mut script);
            Ok(output.text(&String::from_utf8_lossy(&script))?)
        }
        Command::Man { dir } => man::write(Cli::command(), &dir),
    }
}

fn check(output: &Output, file: &std::path::Path) -> Outcome {
    let config = Config::load(file).map_err(|error| Failure::of(Code::Usage, &error))?;
    if output.json {
        return Ok(output.json(&serde_json::json!({ "file": file, "valid": true, "config": shown(&config) }))?);
    }
    Ok(output.line(&format!("{} is right", file.display()))?)
}

/// The settings, without their secrets: what is printed goes into logs and tickets. In their own form they are whole, because a
/// reload compares them.
fn shown(config: &Config) -> serde_json::Value {
    let mut settings = serde_json::to_value(config).expect("every setting has a JSON form");
    hide_secrets(&mut settings);
    settings
}

fn hide_secrets(settings: &mut serde_json::Value) {
    use serde_json::Value;
    match settings {
        Value::Object(keys) => {
            for (key, value) in keys {
                match value {
                    Value::String(word) if key == "community" || key.ends_with("_password") => "***".clone_into(word),
                    Value::Array(words) if key == "communities" => {
                        words.iter_mut().filter(|word| word.is_string()).for_each(|word| *word = Value::from("***"));
                        words.iter_mut().for_each(hide_secrets);
                    }
                    value => hide_secrets(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide_secrets),
        _ => {}
    }
}

/// With whom to speak, and what to show.
struct Whom {
    node: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

async fn find(whom: &Whom) -> Outcome<Client> {
    let token = match &whom.token_file {
        Some(path) => Some(Token::in_file(path).map_err(|error| Failure::new(Code::Usage, error))?),
        None => std::env::var("KLAXON_TOKEN").ok().filter(|token| !token.is_empty()).map(Token),
    };
    let tls = ClientTls { authorities: whom.ca_file.clone(), client: None };
    Client::find(whom.node.as_deref(), Pass { token, is_openstack: false, tls }).await
}

/// Waits for what speaks with a node.
fn wait(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Code::Failed, format!("cannot start: {error}")))?.block_on(command)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_checked_configuration_is_shown_without_its_secrets() {
        let text = r#"
[traps]
communities = ["hush-1"]
users = ["noc"]
[snmp.users.noc]
auth = "sha256"
auth_password = "hush-hush-2"
privacy = "aes256"
privacy_password = "hush-hush-3"
[[snmp.agent.communities]]
community = "hush-4"
view = "some"
[snmp.agent.views.some]
include = ["1.3.6.1"]
[receivers.a]
snmp = { address = "127.0.0.1:162", community = "hush-5" }
[receivers.b]
webhook = { url = "http://127.0.0.1/hook?key=hush-6", secret = "hush-7", bearer = "hush-8", headers = { X-Key = "hush-9" } }
"#;
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        let shown = shown(&config);
        assert!(!shown.to_string().contains("hush"), "{shown}");
        let noc = &shown["snmp"]["users"]["noc"];
        assert_eq!([&noc["auth"], &noc["auth_password"], &noc["privacy_password"]], ["sha256", "***", "***"]);
        assert_eq!(shown["traps"]["communities"], serde_json::json!(["***"]));
        let community = &shown["snmp"]["agent"]["communities"][0];
        assert_eq!([&community["community"], &community["view"]], ["***", "some"]);
        assert_eq!(shown["traps"]["users"][0], "noc");
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_list_needs_no_subcommand_and_takes_its_filters() {
        for line in ["klaxon alarms --site a --min-severity major", "klaxon alarms list --site a", "klaxon alarms show 1a2b"] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        let shelve = ["klaxon", "alarms", "shelve", "--match", "type=a", "--match", "site=b", "--for", "2h", "--reason", "x"];
        Cli::try_parse_from(shelve).expect("two conditions and a time");
        assert!(Cli::try_parse_from(["klaxon", "alarms", "--min-severity", "bad"]).is_err());
        assert!(Cli::try_parse_from(["klaxon", "alarms", "shelve", "1a2b", "--reason", "x"]).is_err(), "for how long?");
        assert!(Cli::try_parse_from(["klaxon", "alarms", "ack"]).is_err(), "which?");
        Cli::try_parse_from(["klaxon", "heartbeat", "backup", "--every", "25h", "--severity", "minor"]).expect("a promise");
        Cli::try_parse_from(["klaxon", "heartbeat", "backup", "--end"]).expect("its end");
        assert!(Cli::try_parse_from(["klaxon", "heartbeat", "backup"]).is_err(), "how often?");
        for line in ["klaxon receivers", "klaxon receivers noc", "klaxon receivers resend noc --from 7", "klaxon drill --all"] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "klaxon sites --state silent",
            "klaxon site add a --kind agent",
            "klaxon site add --from a.csv",
            "klaxon site list",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(Cli::try_parse_from(["klaxon", "site", "add"]).is_err(), "who?");
        assert!(Cli::try_parse_from(["klaxon", "receivers", "resend", "noc"]).is_err(), "from where?");
        assert!(Cli::try_parse_from(["klaxon", "drill"]).is_err(), "with whom?");
        assert!(Cli::try_parse_from(["klaxon", "heartbeat", "backup", "--every", "25h", "--end"]).is_err(), "which of both?");
    }
}

//! `klaxon run`: a node, from a file or from nothing at all.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::client::PACKAGED_SOCKET;
use super::failure::{Code, Failure, Outcome};
use crate::config::Config;

/// How a node is started.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The configuration; without one every setting has its default
    #[arg(long, env = "KLAXON_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the store, in place of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(args: RunArgs) -> Outcome {
    let settings = Settings { file: args.config, data: args.data };
    let config = settings.load().map_err(|error| Failure { code: Code::Usage, ..error.into() })?;
    let log = crate::log::init(&config.log).map_err(Failure::from)?;
    crate::app::run(config, settings, log).map_err(Failure::from)
}

/// Where the settings come from: read at the start, and again on SIGHUP.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    file: Option<PathBuf>,
    data: Option<PathBuf>,
}

impl Settings {
    /// Reads and checks them. The store's folder comes out as an absolute path.
    pub(crate) fn load(&self) -> anyhow::Result<Config> {
        let mut placed = Ok(());
        let mut place = |config: &mut Config| {
            let dir = self.data.as_ref().unwrap_or(&config.store.dir);
            placed = std::path::absolute(dir).map(|dir| config.store.dir = dir);
        };
        let config = match &self.file {
            Some(file) => Config::load_amended(file, place)?,
            None => {
                let mut config = Config::default();
                place(&mut config);
                config.check()?;
                config
            }
        };
        placed?;
        Ok(config)
    }
}

/// Where a node listens.
#[derive(Debug)]
pub(crate) struct Listening<'a> {
    /// The interface, by TCP.
    pub(crate) http: SocketAddr,
    /// The same, by a Unix socket.
    pub(crate) socket: &'a Path,
    /// Where it is reached beside its own host, and whether by TLS.
    pub(crate) others: Vec<(bool, SocketAddr)>,
    /// SNMP notifications, if it has the port.
    pub(crate) traps: Option<SocketAddr>,
    /// SNMP requests, if it has the port.
    pub(crate) agent: Option<SocketAddr>,
    /// StarlingX's programs, if they are served.
    pub(crate) fm: Option<SocketAddr>,
}

/// What a person who has just started a node wants to know: where it is, and what to try next.
pub(crate) fn greeting(config: &Config, listening: &Listening<'_>) -> String {
    let Listening { http: listen, others, socket, traps, agent, fm } = listening;
    let scheme = |tls: bool| if tls { "https" } else { "http" };
    let others: String = others.iter().map(|(tls, address)| format!(" · {}://{address}", scheme(*tls))).collect();
    let also =
        |what: &str, address: &Option<SocketAddr>| address.map_or_else(String::new, |address| format!(" · {what}://{address}"));
    format!(
        "site {site} · http://{listen} · {socket}{others}{traps}{agent}{fm}\nstore {dir}\n\nThe alarms, in a browser:\n  http://{listen}/\n\n\
         Try, in another terminal:\n  \
         klaxon{node} event send --resource host=web-1.filesystem=/var --type disk.full --severity major --text '91 % used'\n  \
         klaxon{node} collect\n  klaxon{node} demo\n  klaxon{node} alarms\n  klaxon{node} alarms watch\n",
        site = config.node.site,
        socket = socket.display(),
        traps = also("traps udp", traps),
        agent = also("snmp udp", agent),
        fm = also("fm tcp", fm),
        dir = config.store.dir.display(),
        node = if is_found(socket) { String::new() } else { format!(" --node {}", socket.display()) },
    )
}

/// Whether the command line finds the socket by itself.
fn is_found(socket: &Path) -> bool {
    socket.ends_with("klaxon-data/klaxon.sock") || socket == Path::new(PACKAGED_SOCKET)
}

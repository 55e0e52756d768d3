//! A node as a process of its own, and what a test does to it and learns from it. The test knows only what the node told it.

#![allow(dead_code, reason = "each test uses its part of the harness")]

pub(crate) mod above;
pub(crate) mod alertmanager;
pub(crate) mod authority;
pub(crate) mod fm;
pub(crate) mod hook;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod load;
pub(crate) mod mount;
pub(crate) mod oracle;
pub(crate) mod prometheus;
pub(crate) mod pysnmp;
pub(crate) mod stand_in;
pub(crate) mod usm;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for a state before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The engines of the view that this build has. What kills, power cuts and damage do is tried on each.
pub(crate) const VIEWS: &[&str] = if cfg!(feature = "sled") { &["fjall", "sled"] } else { &["fjall"] };

/// The engine for a run with `seed`: the same each time.
pub(crate) fn view_of(seed: u64) -> &'static str {
    VIEWS[usize::try_from(seed % VIEWS.len() as u64).expect("small")]
}

/// The program under test.
pub(crate) fn klaxon() -> Command {
    Command::new(env!("CARGO_BIN_EXE_klaxon"))
}

/// Whether all seeds are asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("KLAXON_LONG").is_some()
}

/// How a node is to be started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    /// The folder of its store.
    pub(crate) data: PathBuf,
    /// Lines of configuration beside the address and the folder, as TOML.
    pub(crate) config: String,
    /// Its environment.
    pub(crate) env: Vec<(String, String)>,
}

impl Setup {
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), ..Self::default() }
    }

    pub(crate) fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Loads the shim into the node.
    pub(crate) fn shim(self) -> Self {
        let shim = shim().to_string_lossy().into_owned();
        self.env("LD_PRELOAD", &shim)
    }

    fn command(&self) -> Command {
        let file = self.data.with_extension("toml");
        write_config(&file, &self.config);
        let mut command = klaxon();
        command.args(["run", "--config"]).arg(file).arg("--data").arg(&self.data);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a node and waits until it serves.
    pub(crate) fn start(&self) -> Node {
        match self.try_start() {
            Ok(node) => node,
            Err(failed) => panic!("the node did not start: {}\n{}", failed.status, failed.log),
        }
    }

    /// Starts a node; tells how it ended if it does not come to serve.
    pub(crate) fn try_start(&self) -> Result<Node, Failed> {
        let node = self.try_serve()?;
        node.wait_ready();
        Ok(node)
    }

    /// Starts a node that serves, and may not be ready to take anything.
    pub(crate) fn start_unready(&self) -> Node {
        self.try_serve().unwrap_or_else(|failed| panic!("the node did not start: {}\n{}", failed.status, failed.log))
    }

    fn try_serve(&self) -> Result<Node, Failed> {
        let log = self.data.with_extension("log");
        let errors = std::fs::File::options().create(true).append(true).open(&log).expect("the log can be opened");
        let log_from = errors.metadata().map_or(0, |log| log.len());
        let mut child = self.command().stdout(Stdio::piped()).stderr(errors).spawn().expect("the node can be run");
        let mut lines = BufReader::new(child.stdout.take().expect("is piped"));
        let mut said = String::new();
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            said.push_str(&line);
            if let Some(address) = line.split_once("http://").map(|(_, rest)| rest.split_whitespace().next().unwrap_or("")) {
                let base = format!("http://{address}");
                // It must be able to go on talking.
                std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
                let said =
                    |what: &str| line.split_once(what).and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
                let (traps, snmp, fm) = (said("traps udp://"), said("snmp udp://"), said("fm tcp://"));
                let node = Node { child, base, traps, snmp, fm, data: self.data.clone(), log, log_from, agent: agent() };
                return Ok(node);
            }
            line.clear();
        }
        let status = child.wait().expect("it has ended");
        Err(Failed { status, log: said + &std::fs::read_to_string(&log).unwrap_or_default() })
    }
}

/// Writes a configuration with what nodes of tests have beside the lines that are asked for.
pub(crate) fn write_config(file: &Path, lines: &str) {
    // Nodes run side by side, so each takes free ports.
    let missing = ["http", "traps", "snmp.agent"].into_iter().filter(|section| !lines.contains(&format!("[{section}]")));
    let mut config: String = missing.map(|section| format!("[{section}]\nlisten = \"127.0.0.1:0\"\n")).collect();
    // What the machine of the tests is like must not be among the alarms, unless a test asks for it.
    if !lines.contains("[collect") {
        config.push_str("[collect]\nenabled = false\n");
    }
    std::fs::write(file, config + lines + "\n").expect("the configuration can be written");
}

/// A node in a folder of its own.
pub(crate) struct Site {
    pub(crate) node: Node,
    _scratch: tempfile::TempDir,
}

impl std::ops::Deref for Site {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Site {
    pub(crate) fn start(config: &str) -> Self {
        let scratch = scratch("site-");
        let node = Setup::new(&scratch.path().join("data")).config(config).start();
        Self { node, _scratch: scratch }
    }
}

/// A node that did not come to serve.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

/// A running node. Dropped, it is killed.
pub(crate) struct Node {
    pub(crate) child: Child,
    pub(crate) base: String,
    /// Where it receives traps, if it does.
    pub(crate) traps: Option<std::net::SocketAddr>,
    /// Where it answers SNMP requests, if it does.
    pub(crate) snmp: Option<std::net::SocketAddr>,
    /// Where it serves StarlingX's programs, if it does.
    pub(crate) fm: Option<std::net::SocketAddr>,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    /// Where its log begins in the file, which may have that of an earlier run.
    log_from: u64,
    agent: ureq::Agent,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer of the node.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30))).build().into()
}

impl Node {
    /// GET of a path under `/api/v1`, or of one that begins with `//` under the root.
    pub(crate) fn get(&self, path: &str) -> Result<Reply, ureq::Error> {
        let mut reply = self.agent.get(self.url(path)).call()?;
        Ok(Reply { status: reply.status().as_u16(), body: reply.body_mut().with_config().limit(1 << 30).read_to_string()? })
    }

    /// As [`Node::get`], where nothing else than success will do.
    pub(crate) fn json(&self, path: &str) -> Value {
        let reply = self.get(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.json()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Result<Reply, ureq::Error> {
        let mut reply = self.agent.post(self.url(path)).content_type("application/json").send(body)?;
        Ok(Reply { status: reply.status().as_u16(), body: reply.body_mut().with_config().limit(1 << 30).read_to_string()? })
    }

    /// Posts events, where nothing else than success will do.
    pub(crate) fn send(&self, events: &Value) -> Value {
        let reply = self.post("/events", &events.to_string()).expect("the node answers");
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        match path.strip_prefix("//") {
            Some(root) => format!("{}/{root}", self.base),
            None => format!("{}/api/v1{path}", self.base),
        }
    }

    /// Runs the command line against this node.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        let socket = self.data.join("klaxon.sock");
        klaxon().args(args).env("KLAXON_NODE", socket).output().expect("the command line runs")
    }

    /// As [`Node::cli`], where nothing else than success will do.
    pub(crate) fn cli_ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "klaxon {args:?}: {errors}");
        String::from_utf8(output.stdout).expect("prints text")
    }

    pub(crate) fn wait_ready(&self) {
        wait_until("the node is ready", || self.get("//readyz").is_ok_and(|reply| reply.status == 200));
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("it is there");
    }

    /// SIGSTOP, and waits until it stands still: a busy process goes on for milliseconds after the signal is sent. A thread that
    /// the disk holds up in the kernel may finish that and no more.
    pub(crate) fn stand_still(&self) {
        self.signal(rustix::process::Signal::STOP);
        wait_until("all threads stand still", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it is there");
            let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
            let states: Vec<char> = stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect();
            states.contains(&'T') && states.iter().all(|state| matches!(state, 'T' | 'D'))
        });
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// SIGTERM, and waits.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().expect("it has ended")
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the node did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where the listener is that the settings call `name`.
    pub(crate) fn listener(&self, name: &str) -> std::net::SocketAddr {
        let of_it = format!("listener={name}");
        let mut address = None;
        wait_until("it says where it listens", || {
            let log = self.log_text();
            // What it said when it ran before is not so any more.
            let own = log.get(usize::try_from(self.log_from).expect("is short")..).unwrap_or_default();
            let mut lines = own.lines().filter(|line| line.contains("the API is served over TCP"));
            let line = lines.find(|line| line.split_whitespace().any(|word| word == of_it));
            address = line.and_then(|line| line.split_once("address=")?.1.split_whitespace().next()?.parse().ok());
            address.is_some()
        });
        address.expect("was waited for")
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// All alarms, cleared ones too, page by page.
    pub(crate) fn alarms(&self) -> Vec<Value> {
        self.pages("/alarms?cleared=any&limit=5000", "alarms")
    }

    /// The whole history, the oldest first.
    pub(crate) fn history(&self) -> Vec<Value> {
        self.pages("/history?order=asc&limit=1000", "changes")
    }

    fn pages(&self, path: &str, items: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut page = self.json(&format!("{path}{cursor}"));
            if let Some(Value::Array(these)) = page.get_mut(items).map(Value::take) {
                all.extend(these);
            }
            match page.get("next") {
                Some(Value::String(next)) => cursor = format!("&cursor={next}"),
                Some(Value::Number(next)) => cursor = format!("&cursor={next}"),
                _ => return all,
            }
        }
    }
}

/// Waits for a state, and gives up after [`PATIENCE`].
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The shim, compiled once in a run.
pub(crate) fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/shim.c");
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("shim-{}.so", std::process::id()));
        let done = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&target)
            .arg(&source)
            .arg("-ldl")
            .status();
        assert!(done.expect("there is a C compiler").success(), "the shim does not compile");
        target
    })
}

/// A folder on a real disk: `/tmp` may be in memory. With `KLAXON_KEEP` it stays, to be looked at.
pub(crate) fn scratch(name: &str) -> tempfile::TempDir {
    let keep = std::env::var_os("KLAXON_KEEP").is_some();
    tempfile::Builder::new()
        .prefix(name)
        .disable_cleanup(keep)
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a folder can be made")
}

/// A generator of numbers for schedules; the seed is printed, so that a run can be repeated.
#[derive(Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // xorshift64*: good enough for a schedule, and the same everywhere.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The seeds of a run: a few, or all with `--long`; `KLAXON_SEED` names one. Even and odd ones take turns.
pub(crate) fn seeds(few: u64, all: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("KLAXON_SEED") {
        return vec![seed.parse().expect("KLAXON_SEED is a number")];
    }
    let from = u64::from(std::process::id()) & !1;
    let count = if is_long() { all } else { few };
    (0..count).map(|n| if n < few / 2 { n } else { from + n }).collect()
}

/// Whether the program is there, as `./dev test` puts it beside the build; with `CI` set it must be.
#[expect(clippy::print_stdout, reason = "a test that is left out says so")]
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let found = path.split(':').any(|folder| Path::new(folder).join(program).is_file());
    assert!(found || std::env::var_os("CI").is_none(), "CI needs {program}");
    if !found {
        println!("skipped: there is no {program} on PATH; ./dev test unpacks one");
    }
    found
}

//! net-snmp's snmptrapd as a receiver: a process with an engine id of its own, whose log is read value by value.

#![allow(dead_code, reason = "each test uses its part")]

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long is waited for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether snmptrapd is there; with `CI` set it must be.
pub(crate) fn is_there() -> bool {
    let found = snmptrapd().arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "CI needs snmptrapd (package snmptrapd)");
    found
}

/// The program, which is not in everybody's path.
fn snmptrapd() -> Command {
    let mut command = Command::new("snmptrapd");
    command.env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin");
    command
}

/// A port that is free for UDP now.
pub(crate) fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.local_addr().expect("it is bound").port()
}

/// How one is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Its folder: configuration, log, what it remembers.
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    /// snmpEngineID, as hexadecimal digits.
    pub(crate) engine_id: String,
    /// Lines of its configuration beside those that let the community `public` log: `createUser …`, `authUser …`.
    pub(crate) lines: Vec<String>,
}

impl Setup {
    pub(crate) fn new(dir: &Path, engine_id: &str) -> Self {
        Self { dir: dir.to_owned(), port: free_port(), engine_id: engine_id.to_owned(), lines: Vec::new() }
    }

    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&self) -> Trapd {
        std::fs::create_dir_all(&self.dir).expect("can be made");
        let conf = format!(
            "exactEngineID 0x{}\nauthCommunity log public\nformat1 1|%a|%N|%w|%q|%T|%P|%v\\n\nformat2 2||||||%P|%v\\n\n{}\n",
            self.engine_id,
            self.lines.join("\n")
        );
        std::fs::write(self.dir.join("snmptrapd.conf"), conf).expect("can be written");
        // All octet strings in hexadecimal digits, on one line.
        std::fs::write(self.dir.join("snmp.conf"), "hexOutputLength 0\n").expect("can be written");
        let log = self.dir.join("log");
        let child = snmptrapd()
            .args(["-f", "-On", "-Ox", "-m", "", "-M", "", "-A", "-Lf"])
            .arg(&log)
            .arg(format!("udp:127.0.0.1:{}", self.port))
            .env("SNMPCONFPATH", &self.dir)
            .env("SNMP_PERSISTENT_DIR", self.dir.join("kept"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("snmptrapd runs");
        let trapd = Trapd { child, log, setup: self.clone() };
        wait_until("snmptrapd listens", || UdpSocket::bind(("127.0.0.1", self.port)).is_err());
        // It has the socket before it has read its users; it says its version last.
        wait_until("snmptrapd is up", || trapd.text().lines().any(|line| line.starts_with("NET-SNMP version")));
        trapd
    }
}

/// A running snmptrapd; it ends with this.
pub(crate) struct Trapd {
    child: Child,
    log: PathBuf,
    pub(crate) setup: Setup,
}

/// What it logged of one trap or inform.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    /// 1, or 2 for all that came later.
    pub(crate) form: u8,
    /// Of a trap of v1: agent-addr, enterprise, generic and specific number.
    pub(crate) v1: [String; 4],
    /// The kind of the message, its version and its community or user.
    pub(crate) how: String,
    /// The variables in their order, sysUpTime.0 among them, OIDs without the first dot.
    pub(crate) varbinds: Vec<(String, Value)>,
}

/// A value as it says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Octets(Vec<u8>),
    /// The type that it names, and what it says of it.
    Other(String, String),
}

impl Logged {
    pub(crate) fn get(&self, oid: &str) -> &Value {
        let found = self.varbinds.iter().find(|(name, _)| name == oid);
        &found.unwrap_or_else(|| panic!("{oid} is not in {self:#?}")).1
    }

    pub(crate) fn has(&self, oid: &str) -> bool {
        self.varbinds.iter().any(|(name, _)| name == oid)
    }

    pub(crate) fn text(&self, oid: &str) -> String {
        match self.get(oid) {
            Value::Octets(bytes) => String::from_utf8(bytes.clone()).expect("is UTF-8"),
            Value::Other(kind, value) => panic!("{oid} is {kind}: {value}"),
        }
    }

    pub(crate) fn octets(&self, oid: &str) -> &[u8] {
        match self.get(oid) {
            Value::Octets(bytes) => bytes,
            Value::Other(kind, value) => panic!("{oid} is {kind}: {value}"),
        }
    }

    pub(crate) fn number(&self, oid: &str) -> u64 {
        match self.get(oid) {
            Value::Other(_, value) => value.parse().unwrap_or_else(|_| panic!("{oid} is {value}")),
            Value::Octets(bytes) => panic!("{oid} is {bytes:?}"),
        }
    }

    pub(crate) fn oid(&self, oid: &str) -> &str {
        match self.get(oid) {
            Value::Other(kind, value) if kind == "OID" => value.trim_start_matches('.'),
            other => panic!("{oid} is {other:?}"),
        }
    }

    pub(crate) fn trap_oid(&self) -> &str {
        self.oid("1.3.6.1.6.3.1.1.4.1.0")
    }
}

impl Trapd {
    pub(crate) fn target(&self) -> String {
        format!("127.0.0.1:{}", self.setup.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// All that it logged since its folder was made.
    pub(crate) fn logged(&self) -> Vec<Logged> {
        let text = self.text();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        whole.lines().filter(|line| line.starts_with("1|") || line.starts_with("2|")).map(parse).collect()
    }

    /// How much it has written.
    pub(crate) fn written_bytes(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |log| log.len())
    }

    pub(crate) fn wait_for(&self, count: usize) -> Vec<Logged> {
        wait_until(&format!("{count} are logged"), || self.logged().len() >= count);
        self.logged()
    }

    /// Ends it at once.
    pub(crate) fn kill(mut self) -> Setup {
        self.end();
        self.setup.clone()
    }

    /// Ends it as an administrator does, so that it keeps what it knows.
    pub(crate) fn stop(mut self) -> Setup {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        self.setup.clone()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Trapd {
    fn drop(&mut self) {
        self.end();
    }
}

fn parse(line: &str) -> Logged {
    let fields: Vec<&str> = line.splitn(8, '|').collect();
    let [form, agent, enterprise, generic, specific, _up_time, how, varbinds] = fields[..] else {
        panic!("snmptrapd wrote {line}");
    };
    let varbinds = varbinds.split('\t').filter(|varbind| !varbind.trim().is_empty()).map(|varbind| {
        let (oid, value) = varbind.split_once(" = ").unwrap_or_else(|| panic!("a variable is {varbind:?} in {line}"));
        (oid.trim().trim_start_matches('.').to_owned(), value_of(value.trim()))
    });
    Logged {
        form: form.parse().expect("1 or 2"),
        v1: [agent, enterprise, generic, specific].map(|field| field.trim().trim_start_matches('.').to_owned()),
        how: how.to_owned(),
        varbinds: varbinds.collect(),
    }
}

fn value_of(text: &str) -> Value {
    if text == "\"\"" {
        return Value::Octets(Vec::new());
    }
    let (kind, value) = text.split_once(": ").unwrap_or(("", text));
    match kind {
        "Hex-STRING" => {
            let octet = |digits: &str| u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{text} is not hexadecimal"));
            Value::Octets(value.split_whitespace().map(octet).collect())
        }
        "STRING" => Value::Octets(value.trim_matches('"').as_bytes().to_vec()),
        // (123) 0:00:01.23
        "Timeticks" => {
            let ticks = value.trim_start_matches('(').split(')').next().unwrap_or_default();
            Value::Other(kind.to_owned(), ticks.to_owned())
        }
        _ => Value::Other(kind.to_owned(), value.to_owned()),
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

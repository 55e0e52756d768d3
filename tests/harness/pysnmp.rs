//! pysnmp, another who speaks SNMP: an interpreter that has it, in an environment of its own beside the build, and its receiver of
//! notifications, whose words are read value by value.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use super::wait_until;

const REQUIREMENTS: &str = include_str!("../snmp/requirements.txt");

/// One of the scripts, to be run; none if pysnmp cannot be installed, which with `CI` set it must.
pub(crate) fn script(name: &str) -> Option<Command> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let mut command = Command::new(PYTHON.get_or_init(python).as_ref()?);
    // Nothing is to be written among the sources.
    command.arg("-B").arg(sources().join(name));
    Some(command)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snmp")
}

/// The interpreter, made once and kept.
#[expect(clippy::print_stdout, reason = "a test that is left out says so")]
fn python() -> Option<PathBuf> {
    let version = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("pysnmp==")).expect("is pinned");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("is in the target folder");
    let dir = target.join("pysnmp").join(version);
    let python = dir.join("bin/python");
    if !dir.join("whole").exists() {
        let _ = fs::remove_dir_all(&dir);
        let succeeds = |command: &mut Command| command.stdout(Stdio::null()).status().is_ok_and(|status| status.success());
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        let is_made = succeeds(Command::new("python3").args(["-m", "venv"]).arg(&dir))
            && succeeds(Command::new(&python).args(pip).arg(sources().join("requirements.txt")));
        if !is_made {
            assert!(std::env::var_os("CI").is_none(), "CI needs pysnmp {version}");
            println!("skipped: pysnmp {version} cannot be installed");
            return None;
        }
        fs::write(dir.join("whole"), "").expect("can be written");
    }
    Some(python)
}

/// A notification as pysnmp has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Told {
    /// `SNMPv2TrapPDU` or `InformRequestPDU`.
    pub(crate) pdu: String,
    /// snmpMessageProcessingModel: 1 is v2c, 3 is v3.
    pub(crate) version: String,
    /// `noAuthNoPriv`, `authNoPriv` or `authPriv`.
    pub(crate) level: String,
    /// The community or the user.
    pub(crate) who: String,
    /// In their order, with sysUpTime.0 and snmpTrapOID.0.
    pub(crate) varbinds: Vec<Varbind>,
}

/// A variable: its identifier, what pysnmp calls its type, and its value; octets are hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Varbind(pub(crate) String, pub(crate) String, pub(crate) String);

/// A running receiver; it ends with this.
pub(crate) struct Receiver {
    child: Child,
    stdin: ChildStdin,
    output: PathBuf,
    pub(crate) port: u16,
}

impl Receiver {
    /// Starts one that has its port, keeps what it writes in `dir`, and receives nothing yet.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let mut script = script("receiver.py")?;
        let output = dir.join("pysnmp.log");
        let errors = File::create(dir.join("pysnmp.err")).expect("can be made");
        let mut child = script
            .stdin(Stdio::piped())
            .stdout(File::create(&output).expect("can be made"))
            .stderr(errors)
            .spawn()
            .expect("it runs");
        let stdin = child.stdin.take().expect("is piped");
        let mut receiver = Self { child, stdin, output, port: 0 };
        wait_until("pysnmp has a port", || receiver.line(0).is_some());
        let port = receiver.line(0).expect("is there")["port"].as_u64();
        receiver.port = port.and_then(|port| port.try_into().ok()).expect("is a port");
        Some(receiver)
    }

    /// Lets it receive, from whom its settings say.
    pub(crate) fn listen(&mut self, settings: &Value) {
        writeln!(self.stdin, "{settings}").expect("it reads");
        wait_until("pysnmp receives", || self.line(1).is_some());
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.output).expect("can be read");
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("is JSON")).collect()
    }

    fn line(&self, number: usize) -> Option<Value> {
        self.lines().into_iter().nth(number)
    }

    /// All that `who` said.
    pub(crate) fn told_by(&self, who: &str) -> Vec<Told> {
        let told = self.lines().into_iter().skip(2).map(|line| serde_json::from_value(line).expect("has its fields"));
        told.filter(|told: &Told| told.who == who).collect()
    }

    /// What went wrong with it.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.output.with_extension("err")).unwrap_or_default()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! rsyslogd as a receiver: a process that parses what comes, and writes each message as JSON.

#![allow(dead_code, reason = "each test uses its part")]

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::wait_until;

/// What the structured data is called once it is parsed.
const STRUCTURED: &str = "rfc5424-sd";

/// The program, which is not in everybody's path, and its modules: beside it, where it was unpacked.
fn program() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    std::env::split_paths(&path).map(|dir| dir.join("rsyslogd")).find(|file| file.is_file())
}

/// Whether rsyslogd is there; with `CI` set it must be.
pub(crate) fn is_there() -> bool {
    let found = program().is_some();
    assert!(found || std::env::var_os("CI").is_none(), "CI needs rsyslogd (packages rsyslog, rsyslog-openssl)");
    found
}

fn modules(program: &Path) -> PathBuf {
    let root = program.parent().and_then(Path::parent).and_then(Path::parent).expect("is in usr/sbin");
    let dirs = std::fs::read_dir(root.join("usr/lib")).expect("there are libraries").flatten();
    dirs.map(|dir| dir.path().join("rsyslog")).find(|dir| dir.is_dir()).expect("it has modules")
}

/// How it listens.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Udp,
    Tcp,
    /// With the files of an authority, its own certificate and its key; whether it asks for one of the sender.
    Tls {
        ca: String,
        certificate: String,
        key: String,
        asks: bool,
    },
}

/// A receiver that may run. It ends with this.
pub(crate) struct Rsyslog {
    dir: PathBuf,
    input: Input,
    pub(crate) port: u16,
    child: Option<Child>,
}

impl Rsyslog {
    /// Starts one in a folder of its own, and waits until it listens.
    pub(crate) fn start(dir: &Path, input: Input) -> Self {
        let port = match input {
            Input::Udp => UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()),
            Input::Tcp | Input::Tls { .. } => TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()),
        };
        let mut this = Self { dir: dir.join("rsyslog"), input, port: port.expect("a port is free").port(), child: None };
        std::fs::create_dir_all(&this.dir).expect("can be made");
        this.run();
        this
    }

    /// Starts it again, where it was.
    pub(crate) fn run(&mut self) {
        let (program, conf) = (program().expect("is there"), self.dir.join("conf"));
        std::fs::write(&conf, self.conf()).expect("can be written");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log")).expect("can be opened");
        let child = Command::new(&program)
            .arg("-n")
            .arg("-f")
            .arg(&conf)
            .arg("-i")
            .arg(self.dir.join("pid"))
            .arg("-M")
            .arg(modules(&program))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("is open"))
            .stderr(log)
            .spawn()
            .expect("rsyslogd runs");
        self.child = Some(child);
        wait_until("rsyslogd listens", || match self.input {
            Input::Udp => UdpSocket::bind(("127.0.0.1", self.port)).is_err(),
            Input::Tcp | Input::Tls { .. } => TcpListener::bind(("127.0.0.1", self.port)).is_err(),
        });
    }

    fn conf(&self) -> String {
        let (dir, port) = (self.dir.display(), self.port);
        let input = match &self.input {
            Input::Udp => format!("module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")"),
            Input::Tcp => format!("module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")"),
            Input::Tls { ca, certificate, key, asks } => format!(
                "global(defaultNetstreamDriver=\"ossl\" defaultNetstreamDriverCAFile=\"{ca}\"\n\
                 defaultNetstreamDriverCertFile=\"{certificate}\" defaultNetstreamDriverKeyFile=\"{key}\")\n\
                 module(load=\"imtcp\" streamDriver.name=\"ossl\" streamDriver.mode=\"1\" streamDriver.authMode=\"{}\")\n\
                 input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")",
                if *asks { "x509/certvalid" } else { "anon" },
            ),
        };
        // Each message is written before the next is read: what it has read is in the file when it ends.
        format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"64k\" internal.msg.severity=\"debug\")\n\
             main_queue(queue.type=\"Direct\")\nmodule(load=\"mmpstrucdata\")\n{input}\n\
             template(name=\"json\" type=\"string\" string=\"%jsonmesg%\\n\")\n\
             if $syslogtag startswith \"rsyslogd\" then {{ action(type=\"omfile\" file=\"{dir}/own\") stop }}\n\
             action(type=\"mmpstrucdata\" sd_name.lowercase=\"off\")\naction(type=\"omfile\" file=\"{dir}/got\" template=\"json\")\n"
        )
    }

    /// SIGTERM, and waits.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it is there");
        child.wait().expect("it ends");
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is there");
        child.wait().expect("it ends");
    }

    /// What came, in its order.
    pub(crate) fn got(&self) -> Vec<Got> {
        let text = std::fs::read_to_string(self.dir.join("got")).unwrap_or_default();
        // The last line may be half written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| Got(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))).collect()
    }

    /// Waits for so many.
    pub(crate) fn wait(&self, count: usize) -> Vec<Got> {
        wait_until(&format!("{count} messages have come"), || self.got().len() >= count);
        self.got()
    }

    /// What it says of itself.
    pub(crate) fn own(&self) -> String {
        std::fs::read_to_string(self.dir.join("own")).unwrap_or_default()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// A message as it was parsed.
#[derive(Debug, Clone)]
pub(crate) struct Got(Value);

impl Got {
    /// A property of the message, by rsyslog's name for it.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("{name} is not in {self:#?}"))
    }

    /// A value of the structured data.
    pub(crate) fn data(&self, id: &str, name: &str) -> Option<&str> {
        self.0["$!"][STRUCTURED][id][name].as_str()
    }
}

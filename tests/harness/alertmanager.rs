//! Debian's Alertmanager, and its tool.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{agent, is_there, scratch, wait_until};

const PROGRAM: &str = "prometheus-alertmanager";
/// Where Debian's program looks for its templates, wherever it was unpacked to.
const TEMPLATES: &str = "/usr/share/prometheus";

/// Ended with the test.
pub(crate) struct Alertmanager {
    child: Child,
    pub(crate) base: String,
    _scratch: tempfile::TempDir,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").filter(|_| is_there(PROGRAM))?;
    std::env::split_paths(&path).map(|dir| dir.join(PROGRAM)).find(|file| file.is_file())
}

impl Alertmanager {
    /// One with a receiver, of which the settings are given.
    pub(crate) fn start(program: &Path, receiver: &str) -> Self {
        let scratch = scratch("alertmanager-");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free").port();
        let config = format!(
            "route: {{receiver: hook, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers:\n- name: hook\n  {receiver}\n"
        );
        let file = scratch.path().join("alertmanager.yml");
        std::fs::write(&file, config).expect("can be written");
        let mut command = if Path::new(TEMPLATES).join("alertmanager").is_dir() {
            Command::new(program)
        } else {
            // It was unpacked beside the build. Its templates are put where it looks for them, for its eyes only.
            let share = program.parent().and_then(Path::parent).expect("is in usr/bin").join("share/prometheus");
            let script = format!("mount -t tmpfs none /usr/share && cp -r \"$1\" {TEMPLATES} && shift && exec \"$@\"");
            let mut command = Command::new("unshare");
            command.args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"]).arg(share).arg(program);
            command
        };
        let log = std::fs::File::create(scratch.path().join("log")).expect("can be made");
        let child = command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", scratch.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("can be started");
        let this = Self { child, base: format!("http://127.0.0.1:{port}"), _scratch: scratch };
        wait_until("alertmanager is ready", || {
            agent().get(format!("{}/-/ready", this.base)).call().is_ok_and(|reply| reply.status() == 200)
        });
        this
    }

    /// Its process. It takes the place of the shell that may have started it.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn post(&self, alerts: &Value) {
        let request = agent().post(format!("{}/api/v2/alerts", self.base)).content_type("application/json");
        let mut reply = request.send(alerts.to_string()).expect("it answers");
        let words = reply.body_mut().read_to_string().unwrap_or_default();
        assert_eq!(reply.status(), 200, "{words}");
    }

    pub(crate) fn alerts(&self) -> Value {
        let mut reply = agent().get(format!("{}/api/v2/alerts", self.base)).call().expect("it answers");
        serde_json::from_str(&reply.body_mut().read_to_string().expect("is text")).expect("is JSON")
    }
}

/// What a value is, without what it says. Labels and annotations are maps of texts, whatever their names.
pub(crate) fn shape(value: &Value) -> Value {
    let is_map = |name: &str| ["labels", "annotations", "groupLabels", "commonLabels", "commonAnnotations"].contains(&name);
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match value {
                Value::Object(words) if is_map(name) => {
                    assert!(words.values().all(Value::is_string), "{name}: {words:?}");
                    (name.clone(), json!("words"))
                }
                other => (name.clone(), shape(other)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("truth"),
        Value::Null => json!("nothing"),
    }
}

/// Runs amtool against the API at `base`, as whoever the settings in `file` say.
pub(crate) fn amtool(base: &str, file: Option<&Path>, args: &[&str]) -> (bool, String) {
    let mut command = Command::new("amtool");
    command.arg(format!("--alertmanager.url={base}")).args(["--output=json"]);
    if let Some(file) = file {
        command.arg(format!("--http.config.file={}", file.display()));
    }
    let output = command.args(args).output().expect("it comes with Alertmanager");
    let words = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8_lossy(&words).into_owned())
}

//! Debian's Prometheus.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::agent;

/// Ended with the test.
pub(crate) struct Prometheus {
    pub(crate) child: Child,
    pub(crate) base: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// One with its data in `dir`.
    pub(crate) fn start(dir: &Path, config: &str, args: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free").port();
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config).expect("can be written");
        let log = std::fs::File::create(dir.join("prometheus.log")).expect("can be made");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(args)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("can be started");
        Self { child, base: format!("http://127.0.0.1:{port}") }
    }

    /// What it answers to an expression; null until it listens.
    pub(crate) fn query(&self, expression: &str) -> Value {
        let asked = agent().get(format!("{}/api/v1/query", self.base)).query("query", expression).call();
        let text = asked.ok().and_then(|mut reply| reply.body_mut().read_to_string().ok());
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
    }
}

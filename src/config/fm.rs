//! `[fm]`: the door of StarlingX's programs.

use std::net::SocketAddr;

use klaxon_ingest::fm::FmConfig;
use klaxon_schemas::names::Site;
use serde::{Deserialize, Serialize};

use super::collect::Mistake;

/// The most connections that may be set.
const CONNECTIONS_LIMIT: usize = 65_536;

/// The door of what speaks fmManager's protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FmSection {
    /// Whether there is one.
    pub enabled: bool,
    /// Where TCP is listened on.
    pub listen: SocketAddr,
    /// Whether other hosts may reach it, without any authentication.
    pub insecure: bool,
    /// Whose alarms come by it; the node's own, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// The most connections at one time.
    pub connections_max: usize,
}

impl Default for FmSection {
    fn default() -> Self {
        let FmConfig { listen, connections_max } = FmConfig::default();
        Self { enabled: false, listen, insecure: false, site: None, connections_max }
    }
}

impl FmSection {
    /// As the door takes it, if there is to be one.
    pub fn build(&self) -> Option<FmConfig> {
        self.enabled.then_some(FmConfig { listen: self.listen, connections_max: self.connections_max })
    }

    /// The first setting that is wrong, and why.
    pub(super) fn mistake(&self) -> Option<Mistake> {
        if !(1..=CONNECTIONS_LIMIT).contains(&self.connections_max) {
            return Some(("fm.connections_max".to_owned(), format!("must be between 1 and {CONNECTIONS_LIMIT}")));
        }
        if self.enabled && !self.insecure && !self.listen.ip().is_loopback() {
            let reason = "can be reached from other hosts, and the protocol has no authentication; take a loopback address such as \
                          127.0.0.1:8001, or say insecure = true, and whoever reaches it may raise and clear alarms";
            return Some(("fm.listen".to_owned(), reason.to_owned()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    #[test]
    fn other_hosts_are_let_in_only_if_it_is_said() {
        let parse = |text: &str| Config::parse(text, Path::new("k.toml"));
        let error = |text: &str| parse(text).expect_err("is wrong").to_string();
        let open = error("[fm]\nenabled = true\nlisten = \"0.0.0.0:8001\"\n");
        assert!(open.starts_with("k.toml:3: fm.listen: can be reached from other hosts"), "{open}");
        let said = parse("[fm]\nenabled = true\nlisten = \"0.0.0.0:8001\"\ninsecure = true\n").expect("is sound");
        assert_eq!(said.fm.build().map(|fm| fm.listen.port()), Some(8001));
        assert_eq!(parse("[fm]\nlisten = \"0.0.0.0:8001\"\n").expect("is off").fm.build(), None);
        let none = error("[fm]\nconnections_max = 0\n");
        assert_eq!(none, "k.toml:2: fm.connections_max: must be between 1 and 65536");
        assert!(error("[fm]\nsite = \"a b\"\n").starts_with("k.toml:2: fm.site: "));
    }
}

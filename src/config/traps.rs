//! `[traps]`: the door of devices.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use klaxon_ingest::trap::TrapConfig;
use klaxon_schemas::names::Site;
use klaxon_snmp::{Secret, Version};
use serde::{Deserialize, Serialize};

use super::snmp::SnmpConfig;
use super::units::Size;

/// The door of devices: SNMP notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrapsConfig {
    /// Whether they are received.
    pub enabled: bool,
    /// Where UDP is listened on.
    pub listen: SocketAddr,
    /// What the kernel is asked for.
    pub receive_buffer: Size,
    /// Which versions of SNMP are taken.
    pub versions: Vec<Version>,
    /// Which communities are taken; any, if none is named.
    pub communities: Vec<Secret>,
    /// Which users of SNMPv3 are taken, by their names in `[snmp.users]`; all, if none is named.
    pub users: Vec<String>,
    /// The sites of devices by network.
    pub sites: BTreeMap<IpNet, Site>,
}

impl Default for TrapsConfig {
    fn default() -> Self {
        let TrapConfig { listen, receive_buffer_bytes, versions, .. } = TrapConfig::default();
        Self {
            enabled: true,
            listen,
            receive_buffer: Size(receive_buffer_bytes as u64),
            versions,
            communities: Vec::new(),
            users: Vec::new(),
            sites: BTreeMap::new(),
        }
    }
}

impl TrapsConfig {
    /// As the trap receiver takes it, if traps are received.
    pub fn build(&self) -> Option<TrapConfig> {
        let Self { enabled, listen, receive_buffer, versions, communities, users: _, sites } = self;
        enabled.then(|| TrapConfig {
            listen: *listen,
            receive_buffer_bytes: usize::try_from(receive_buffer.0).unwrap_or(usize::MAX),
            versions: versions.clone(),
            communities: communities.iter().map(|community| community.0.clone()).collect(),
            sites: sites.iter().map(|(network, site)| (*network, site.clone())).collect(),
            ..TrapConfig::default()
        })
    }

    /// The first setting that is outside its bounds, and why.
    pub(super) fn mistake(&self) -> Option<(String, String)> {
        if self.versions.is_empty() {
            return Some(("traps.versions".to_owned(), "names none; `enabled = false` turns traps off".to_owned()));
        }
        let is_right = (Size(64 << 10)..=Size::mib(1023)).contains(&self.receive_buffer);
        (!is_right).then(|| ("traps.receive_buffer".to_owned(), "must be between 64KiB and 1023MiB".to_owned()))
    }

    /// The first of its users that there is not, and why. Needs no keys.
    pub(super) fn stranger(&self, snmp: &SnmpConfig) -> Option<(String, String)> {
        let name = self.users.iter().find(|name| !snmp.users.contains_key(*name))?;
        Some(("traps.users".to_owned(), format!("{name:?} is none of [snmp.users]")))
    }

    /// Whether notifications of this one of `[snmp.users]` are taken.
    pub(super) fn takes(&self, name: &String) -> bool {
        self.users.is_empty() || self.users.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn traps_have_sites_by_network_and_secrets_that_are_not_shown() {
        let text =
            "[traps]\ncommunities = [\"hush\"]\nsites = { \"10.7.0.0/16\" = \"depot-7\", \"2001:db8::/32\" = \"lab\" }\n";
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        let traps = config.traps.build().expect("are received");
        assert_eq!(traps.sites.len(), 2);
        assert_eq!(traps.communities, ["hush"]);
        assert!(!format!("{config:?} {traps:?}").contains("hush"));
        let wrong = error("[traps]\n\nsites = { \"10.7.0.0\" = \"depot-7\" }\n");
        assert!(wrong.starts_with("k.toml:3: traps.sites: "), "{wrong}");
        assert!(error("[traps]\nlisten = \"everywhere\"\n").starts_with("k.toml:2: traps.listen: "));
        assert_eq!(
            error("[traps]\nreceive_buffer = \"1B\"\n"),
            "k.toml:2: traps.receive_buffer: must be between 64KiB and 1023MiB"
        );
        assert_eq!(
            error("[traps]\nversions = []\n"),
            "k.toml:2: traps.versions: names none; `enabled = false` turns traps off"
        );
        assert!(error("[traps]\nversions = [\"2\"]\n").starts_with("k.toml:2: traps.versions: "));
        let off = Config::parse("[traps]\nenabled = false\n", Path::new("k.toml")).expect("is right");
        assert_eq!(off.traps.build(), None);
    }

    #[test]
    fn all_users_may_send_traps_unless_some_are_named() {
        let users = "[snmp.users.one]\n[snmp.users.two]\nname = \"deux\"\n";
        let taken = |traps: &str| {
            let config = Config::parse(&format!("{users}{traps}"), Path::new("k.toml")).expect("is right");
            let users = config.trap_users().expect("are right");
            users.iter().map(|user| user.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(taken(""), ["one", "deux"]);
        assert_eq!(taken("[traps]\nusers = [\"two\"]\n"), ["deux"]);
        assert_eq!(
            error(&format!("{users}[traps]\nusers = [\"deux\"]\n")),
            "k.toml:5: traps.users: \"deux\" is none of [snmp.users]"
        );
    }
}

//! `[traps]`: the door of devices.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use klaxon_ingest::trap::devices::{Device, DeviceName, network};
use klaxon_ingest::trap::mapping::Mappings;
use klaxon_ingest::trap::{SourceLimit, TrapConfig, TrapRules};
use klaxon_schemas::names::Site;
use klaxon_snmp::{Secret, Version};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// Files that say what traps become, and folders of them.
    pub mappings: Vec<PathBuf>,
    /// The sites of devices by network.
    pub sites: BTreeMap<IpNet, Site>,
    /// What is known of devices, by address or network.
    pub devices: BTreeMap<Network, DeviceSection>,
    /// How many datagrams each source may send a second.
    pub source_rate_max: u32,
    /// How many it may send at once.
    pub source_burst_max: u32,
}

/// An address, or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(pub IpNet);

/// What is known of a device, or of those of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceSection {
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// What it is called in resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<DeviceName>,
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        network(&String::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Default for TrapsConfig {
    fn default() -> Self {
        let TrapConfig { listen, receive_buffer_bytes, versions, .. } = TrapConfig::default();
        let SourceLimit { rate_max, burst_max } = SourceLimit::default();
        Self {
            enabled: true,
            listen,
            receive_buffer: Size(receive_buffer_bytes as u64),
            versions,
            communities: Vec::new(),
            users: Vec::new(),
            mappings: Vec::new(),
            sites: BTreeMap::new(),
            devices: BTreeMap::new(),
            source_rate_max: rate_max,
            source_burst_max: burst_max,
        }
    }
}

impl TrapsConfig {
    /// As the trap receiver takes it, if traps are received; or the key that is wrong and why. Reads the mapping files.
    pub fn build(&self) -> Result<Option<TrapConfig>, (String, String)> {
        let config = TrapConfig {
            listen: self.listen,
            receive_buffer_bytes: usize::try_from(self.receive_buffer.0).unwrap_or(usize::MAX),
            versions: self.versions.clone(),
            communities: self.communities.iter().map(|community| community.0.clone()).collect(),
            rules: self.rules()?,
            ..TrapConfig::default()
        };
        Ok(self.enabled.then_some(config))
    }

    /// What may change while traps are received, or the key that is wrong and why. Reads the mapping files.
    pub fn rules(&self) -> Result<TrapRules, (String, String)> {
        let mappings = Mappings::load(&self.mappings).map_err(|error| ("traps.mappings".to_owned(), error.to_string()))?;
        let known = self
            .devices
            .iter()
            .map(|(network, DeviceSection { site, name })| (network.0, Device { site: site.clone(), name: name.clone() }));
        let sites = self.sites.iter().map(|(network, site)| (*network, Device { site: Some(site.clone()), name: None }));
        Ok(TrapRules {
            devices: known.chain(sites).collect(),
            mappings,
            source_limit: SourceLimit { rate_max: self.source_rate_max, burst_max: self.source_burst_max },
        })
    }

    /// The first setting that is outside its bounds, and why.
    pub(super) fn mistake(&self) -> Option<(String, String)> {
        if self.versions.is_empty() {
            return Some(("traps.versions".to_owned(), "names none; `enabled = false` turns traps off".to_owned()));
        }
        if !(Size(64 << 10)..=Size::mib(1023)).contains(&self.receive_buffer) {
            return Some(("traps.receive_buffer".to_owned(), "must be between 64KiB and 1023MiB".to_owned()));
        }
        if self.source_burst_max == 0 {
            return Some(("traps.source_burst_max".to_owned(), "must be at least 1".to_owned()));
        }
        self.rules().err()
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
        let traps = config.traps.build().expect("is right").expect("are received");
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
        assert_eq!(off.traps.build(), Ok(None));
    }

    #[test]
    fn devices_have_names_and_sites_by_address_or_network() {
        let text = "[traps.devices]\n\"10.7.0.3\" = { name = \"sw-3\" }\n\"10.7.0.0/16\" = { site = \"depot-7\" }\n";
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        let devices = config.traps.rules().expect("are right").devices;
        assert_ne!(devices, Default::default());
        let again = toml::to_string(&config).expect("has a TOML form");
        assert_eq!(Config::parse(&again, Path::new("k.toml")).expect("is right"), config);
        let nowhere = error("[traps.devices]\n\"sw-3\" = { name = \"sw-3\" }\n");
        assert!(nowhere.starts_with("k.toml:") && nowhere.contains("\"sw-3\" is no address and no network"), "{nowhere}");
        let name = error("[traps.devices]\n\"10.7.0.3\" = { name = \"sw 3\" }\n");
        assert!(name.starts_with("k.toml:2: ") && name.contains("has the character ' '"), "{name}");
    }

    #[test]
    fn a_mapping_that_is_wrong_is_named_with_file_line_and_key() {
        let dir = tempfile::tempdir().expect("can be made");
        let text = format!("[traps]\n\nmappings = [{:?}]\n", dir.path());
        let config = Config::parse(&text, Path::new("k.toml")).expect("a folder may be empty");
        assert_eq!(config.traps.rules().expect("are right").mappings.rules(), 0);
        let rule = "[[rule]]\nname = \"a\"\ntrap = \"1.3.6.1.4.1.9.0.1\"\nalarm_type = \"a\"\nseverity = \"major\"\n";
        std::fs::write(dir.path().join("a.toml"), rule).expect("is written");
        std::fs::write(dir.path().join("b.toml~"), "rubbish").expect("is written");
        let config = Config::parse(&text, Path::new("k.toml")).expect("is right");
        assert_eq!(config.traps.rules().expect("are right").mappings.rules(), 1);
        std::fs::write(dir.path().join("b.toml"), rule.replace("major", "awful")).expect("is written");
        let wrong = error(&text);
        let place = dir.path().join("b.toml");
        let expected = format!("k.toml:3: traps.mappings: {}:5: rule.severity: \"awful\" is none of ", place.display());
        assert!(wrong.starts_with(&expected), "{wrong}");
        let missing = error("[traps]\nmappings = [\"/nowhere/at/all.toml\"]\n");
        assert!(missing.starts_with("k.toml:2: traps.mappings: cannot read /nowhere/at/all.toml: "), "{missing}");
    }

    #[test]
    fn all_users_may_send_traps_unless_some_are_named() {
        let users = "[snmp.users.one]\n[snmp.users.two]\nname = \"deux\"\n";
        let taken = |traps: &str| {
            let config = Config::parse(&format!("{users}{traps}"), Path::new("k.toml")).expect("is right");
            let users = config.trap_users(&config.users().expect("are right"));
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

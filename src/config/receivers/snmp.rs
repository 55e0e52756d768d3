//! `[receivers.NAME.snmp]`: an SNMP manager that is told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use klaxon_api::agent::WrsProfile;
use klaxon_api::agent::oids::Root;
use klaxon_api::notify::{SnmpConfig, SnmpProfile, Wrs};
use klaxon_snmp::{Credentials, Secret, User};
use serde::{Deserialize, Serialize, Serializer};

use super::super::snmp::read;
use super::super::units::Span;
use super::Mistake;

/// The longest community.
const COMMUNITY_BYTES_MAX: usize = 255;
/// The community that is said if none is set.
const COMMUNITY_BY_DEFAULT: &str = "public";

/// An SNMP manager. What is absent is as [`SnmpConfig::new`] has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SnmpSection {
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<VersionWord>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "hidden")]
    community: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    community_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<ProfileWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrs: Option<WrsSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datagram_bytes_max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trap_rate: Option<NonZeroU32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum VersionWord {
    #[serde(rename = "1")]
    V1,
    #[serde(rename = "2c")]
    V2c,
    #[serde(rename = "3")]
    V3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProfileWord {
    Klaxon,
    Rfc3877,
    Wrs,
}

/// How StarlingX is spoken.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrsSection {
    form: WrsProfile,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
}

/// A community is read and never written.
fn hidden<S: Serializer>(_: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("***")
}

impl SnmpSection {
    /// As the notifier takes it, or the key that is wrong and why. Reads the file that holds the community.
    pub(super) fn build(&self, users: &BTreeMap<String, User>, root: &Root) -> Result<SnmpConfig, Mistake> {
        let wrong = |key: &str, reason: String| (key.to_owned(), reason);
        let address = self.address.clone().ok_or_else(|| wrong("address", "is missing".to_owned()))?;
        let is_address = address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !is_address {
            return Err(wrong("address", "is no host and port, such as noc.example:162 or [2001:db8::1]:162".to_owned()));
        }
        let defaults = SnmpConfig::new(address, self.credentials(users)?);
        let config = SnmpConfig {
            confirm: self.confirm.unwrap_or(defaults.confirm),
            profile: self.profile()?,
            root: root.clone(),
            source: self.source,
            window: self.window.unwrap_or(defaults.window),
            timeout: self.timeout.map_or(defaults.timeout, |span| span.0),
            retries: self.retries.unwrap_or(defaults.retries),
            datagram_bytes_max: self.datagram_bytes_max.unwrap_or(defaults.datagram_bytes_max),
            trap_rate: self.trap_rate.unwrap_or(defaults.trap_rate),
            ..defaults
        };
        config.check().map_err(|(key, reason)| wrong(key, reason))?;
        Ok(config)
    }

    fn credentials(&self, users: &BTreeMap<String, User>) -> Result<Credentials, Mistake> {
        let wrong = |key: &str, reason: &str| Err((key.to_owned(), reason.to_owned()));
        let version = self.version.unwrap_or(if self.user.is_some() { VersionWord::V3 } else { VersionWord::V2c });
        let has_community = self.community.is_some() || self.community_file.is_some();
        match (version, &self.user) {
            (VersionWord::V3, None) => wrong("user", "is missing: version 3 needs one of snmp.users"),
            (VersionWord::V3, Some(_)) if has_community => wrong("community", "is for versions 1 and 2c"),
            (VersionWord::V3, Some(name)) => match users.get(name) {
                Some(user) => Ok(Credentials::V3(user.clone())),
                None => wrong("user", &format!("there is no snmp.users.{name}")),
            },
            (VersionWord::V1 | VersionWord::V2c, Some(_)) => wrong("user", "is for version 3"),
            (VersionWord::V1, None) => Ok(Credentials::V1(self.community()?)),
            (VersionWord::V2c, None) => Ok(Credentials::V2c(self.community()?)),
        }
    }

    fn community(&self) -> Result<Secret, Mistake> {
        let of = |reason: String| ("community".to_owned(), reason);
        let community = match (&self.community, &self.community_file) {
            (Some(_), Some(_)) => return Err(of("is given here and by a file; one is enough".to_owned())),
            (Some(community), None) => community.clone(),
            (None, Some(file)) => read(file).map_err(|reason| ("community_file".to_owned(), reason))?,
            (None, None) => Secret(COMMUNITY_BY_DEFAULT.to_owned()),
        };
        if community.0.len() > COMMUNITY_BYTES_MAX {
            let key = if self.community_file.is_some() { "community_file" } else { "community" };
            return Err((key.to_owned(), format!("has more than {COMMUNITY_BYTES_MAX} bytes")));
        }
        Ok(community)
    }

    fn profile(&self) -> Result<SnmpProfile, Mistake> {
        let profile = self.profile.unwrap_or(if self.wrs.is_some() { ProfileWord::Wrs } else { ProfileWord::Klaxon });
        if profile != ProfileWord::Wrs && self.wrs.is_some() {
            return Err(("wrs".to_owned(), "is for the profile wrs".to_owned()));
        }
        Ok(match profile {
            ProfileWord::Klaxon => SnmpProfile::Klaxon,
            ProfileWord::Rfc3877 => SnmpProfile::Rfc3877,
            ProfileWord::Wrs => {
                let WrsSection { form, region, system } = self.wrs.clone().unwrap_or_default();
                let defaults = Wrs::default();
                SnmpProfile::Wrs(Wrs { form, region: region.unwrap_or(defaults.region), system })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use klaxon_api::agent::WrsProfile;
    use klaxon_api::notify::{SinkConfig, SnmpConfig, SnmpProfile, Wrs};
    use klaxon_snmp::Credentials;

    use crate::config::Config;

    const USER: &str = "[snmp.users.noc]\nauth = \"sha256\"\nauth_password = \"hush-hush\"\n";

    fn parsed(keys: &str) -> SnmpConfig {
        let text = format!("{USER}[receivers.noc.snmp]\n{keys}\n");
        let config = Config::parse(&text, Path::new("k.toml")).expect("is right");
        let receivers = config.receivers(&config.users().expect("are right")).expect("is right");
        assert!(!receivers[0].updates, "a manager is told of conditions");
        let SinkConfig::Snmp(snmp) = receivers[0].sink.clone() else { panic!("{receivers:?}") };
        *snmp
    }

    fn error(keys: &str) -> String {
        let text = format!("{USER}[receivers.noc.snmp]\n{keys}\n");
        Config::parse(&text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn a_manager_needs_an_address_and_no_more() {
        let noc = parsed("address = \"noc.example:162\"");
        assert_eq!(noc.target(), "noc.example:162 (v2c informs)");
        assert_eq!((noc.window, noc.timeout, noc.datagram_bytes_max), (32, Duration::from_secs(5), 1472));
        assert_eq!(parsed("address = \"[::1]:162\"\nuser = \"noc\"").target(), "[::1]:162 (v3 informs as noc)");
        let v1 = parsed("address = \"10.0.0.9:162\"\nversion = \"1\"\ncommunity = \"hush\"");
        assert!(matches!(&v1.credentials, Credentials::V1(community) if community.0 == "hush") && !v1.confirm);
        let text = "[receivers.noc.snmp]\naddress = \"10.0.0.9:162\"\ncommunity = \"hush\"\n";
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        assert!(!format!("{config:?} {}", serde_json::to_string(&config).expect("serializes")).contains("hush"));
        assert!(!format!("{v1:?}").contains("hush") && v1.target() == "10.0.0.9:162 (v1 traps)");
    }

    #[test]
    fn all_that_can_be_said_is_taken() {
        let noc = parsed(
            "address = \"10.0.0.9:162\"\nversion = \"3\"\nuser = \"noc\"\nconfirm = false\nprofile = \"wrs\"\n\
             wrs = { form = \"as-starlingx\", region = \"North\", system = \"depot\" }\nsource = \"10.0.0.1\"\nwindow = 8\n\
             timeout = \"2s\"\nretries = 1\ndatagram_bytes_max = 484\ntrap_rate = 50",
        );
        let wrs = Wrs { form: WrsProfile::AsStarlingx, region: "North".to_owned(), system: Some("depot".to_owned()) };
        assert_eq!(noc.profile, SnmpProfile::Wrs(wrs));
        assert_eq!((noc.confirm, noc.window, noc.retries, noc.trap_rate.get()), (false, 8, 1, 50));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let to = |keys: &str| error(&format!("address = \"10.0.0.9:162\"\n{keys}"));
        for (said, expected) in [
            (error("window = 1"), "receivers.noc.snmp.address: is missing"),
            (error("address = \"noc\""), "receivers.noc.snmp.address: is no host and port"),
            (to("user = \"nobody\""), "receivers.noc.snmp.user: there is no snmp.users.nobody"),
            (to("version = \"3\""), "receivers.noc.snmp.user: is missing: version 3 needs one of snmp.users"),
            (to("version = \"2c\"\nuser = \"noc\""), "receivers.noc.snmp.user: is for version 3"),
            (to("user = \"noc\"\ncommunity = \"a\""), "receivers.noc.snmp.community: is for versions 1 and 2c"),
            (to("community_file = \"/nowhere\""), "receivers.noc.snmp.community_file: cannot read /nowhere"),
            (to("version = \"1\"\nconfirm = true"), "receivers.noc.snmp.confirm: version 1 has no informs"),
            (to("timeout = \"60s\""), "receivers.noc.snmp.timeout: with the retries it is longer than the 120 s"),
            (to("retries = 4294967295"), "receivers.noc.snmp.retries: is more than 10"),
            (
                to("confirm = false\nwindow = 1000\ntrap_rate = 5"),
                "receivers.noc.snmp.trap_rate: is too low for window: the last of 1000 traps would wait 200 s",
            ),
            (to("profile = \"wrs\"\n[receivers.noc]\nheartbeat = \"1m\""), "receivers.noc.heartbeat: is for webhooks"),
            (to("profile = \"rfc3877\"\n[receivers.noc]\nheartbeat = \"1m\""), "receivers.noc.heartbeat: is for webhooks"),
            (to("window = 0"), "receivers.noc.snmp.window: is not between 1 and 1000"),
            (to("datagram_bytes_max = 100"), "receivers.noc.snmp.datagram_bytes_max: is not between 484 and 65507"),
            (to("profile = \"klaxon\"\nwrs = {}"), "receivers.noc.snmp.wrs: is for the profile wrs"),
            (to("version = \"2\""), "receivers.noc.snmp.version: "),
            (to("adress = \"a\""), "receivers.noc.snmp.adress"),
        ] {
            assert!(said.contains(expected), "{said}: {expected}");
        }
    }
}

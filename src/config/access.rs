//! `[access]`: who may do what, beside the tokens that the node itself makes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use klaxon_api::http::{AccessConfig, Grant, KeystoneConfig};
use klaxon_schemas::access::{Role, SCOPE_SITES_MAX, Scope};
use klaxon_schemas::names::{Actor, Site};
use serde::{Deserialize, Serialize};

use super::Span;
use super::collect::Mistake;

/// The most certificates that are given something by name.
const CERTIFICATES_MAX: usize = 1000;
/// The most roles of Keystone that have a meaning here.
const ROLES_MAX: usize = 100;
/// How long what Keystone said is believed, unless set otherwise.
const CACHE_DEFAULT: Span = Span(Duration::from_secs(60));

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessSection {
    /// By the name in a client certificate: its common name, or a DNS name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    certificates: BTreeMap<String, GrantSection>,
    /// Who says whose other tokens are.
    #[serde(skip_serializing_if = "Option::is_none")]
    keystone: Option<KeystoneSection>,
}

/// Keystone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeystoneSection {
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service_token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache: Option<Span>,
    #[serde(default)]
    insecure: bool,
    roles: BTreeMap<String, GrantSection>,
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantSection {
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sites: Option<Vec<Site>>,
}

impl AccessSection {
    /// As the front end takes it; or the setting that is wrong, and why.
    pub(super) fn build(&self) -> Result<AccessConfig, Mistake> {
        if self.certificates.len() > CERTIFICATES_MAX {
            let reason = format!("names {} certificates, at most {CERTIFICATES_MAX} are allowed", self.certificates.len());
            return Err(("access.certificates".to_owned(), reason));
        }
        for name in self.certificates.keys() {
            Actor::new(name).map_err(|error| (format!("access.certificates.{name}"), error.to_string()))?;
        }
        let keystone = self.keystone.as_ref().map(KeystoneSection::build).transpose()?;
        Ok(AccessConfig { certificates: grants("access.certificates", &self.certificates)?, keystone })
    }
}

fn grants(key: &str, sections: &BTreeMap<String, GrantSection>) -> Result<BTreeMap<String, Grant>, Mistake> {
    sections.iter().map(|(name, section)| Ok((name.clone(), section.build(&format!("{key}.{name}"))?))).collect()
}

impl KeystoneSection {
    fn build(&self) -> Result<KeystoneConfig, Mistake> {
        let wrong = |key: &str, reason: &str| Err((format!("access.keystone.{key}"), reason.to_owned()));
        let url: Uri = match self.url.parse::<Uri>() {
            Ok(url) if matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some() && url.query().is_none() => {
                url
            }
            _ => return wrong("url", "is no address such as https://keystone.example:5000"),
        };
        let local =
            url.host().is_some_and(|host| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()));
        if url.scheme_str() == Some("http") && !local && !self.insecure {
            return wrong(
                "url",
                "is not https://, so anybody on the way could read tokens; take https://, or say insecure = true",
            );
        }
        let cache = self.cache.unwrap_or(CACHE_DEFAULT);
        if cache < Span::seconds(1) || cache > Span::hours(1) {
            return wrong("cache", "must be between 1s and 1h");
        }
        if self.roles.is_empty() || self.roles.len() > ROLES_MAX {
            return wrong("roles", &format!("names {} roles; name 1 to {ROLES_MAX}", self.roles.len()));
        }
        Ok(KeystoneConfig {
            url,
            ca_file: self.ca_file.clone(),
            service_token_file: self.service_token_file.clone(),
            roles: grants("access.keystone.roles", &self.roles)?,
            cache: cache.0,
        })
    }
}

impl GrantSection {
    /// `key` names it.
    fn build(&self, key: &str) -> Result<Grant, Mistake> {
        let scope = match &self.sites {
            None => Scope::all(),
            Some(sites) if (1..=SCOPE_SITES_MAX).contains(&sites.len()) => Scope::of(sites.iter().cloned()),
            Some(sites) => {
                let reason = format!("has {} sites; name 1 to {SCOPE_SITES_MAX}, or leave it out for all", sites.len());
                return Err((format!("{key}.sites"), reason));
            }
        };
        Ok(Grant { role: self.role, scope })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use klaxon_schemas::access::{Role, Scope};

    use super::super::Config;

    #[test]
    fn a_certificate_is_given_a_role_and_perhaps_sites() {
        let read = |text: &str| Config::parse(text, Path::new("k.toml"));
        let config = read("[access.certificates.\"noc.example\"]\nrole = \"reader\"\nsites = [\"a\"]\n").expect("is sound");
        let grant = config.access().expect("is sound").certificates["noc.example"].clone();
        assert_eq!((grant.role, grant.scope), (Role::Reader, Scope::of(["a".parse().expect("valid")])));
        let none = read("[access.certificates.noc]\nrole = \"reader\"\nsites = []\n").expect_err("is wrong").to_string();
        assert_eq!(none, "k.toml:3: access.certificates.noc.sites: has 0 sites; name 1 to 64, or leave it out for all");
        assert!(read("[access.certificates.noc]\nrole = \"root\"\n").is_err());
    }
}

//! `[access]`: who may do what, beside the tokens that the node itself makes.

use std::collections::BTreeMap;

use klaxon_api::http::{AccessConfig, Grant};
use klaxon_schemas::access::{Role, SCOPE_SITES_MAX, Scope};
use klaxon_schemas::names::{Actor, Site};
use serde::{Deserialize, Serialize};

use super::collect::Mistake;

/// The most certificates that are given something by name.
const CERTIFICATES_MAX: usize = 1000;

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessSection {
    /// By the name in a client certificate: its common name, or a DNS name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    certificates: BTreeMap<String, GrantSection>,
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
        let certificates = self.certificates.iter().map(|(name, section)| Ok((name.clone(), section.build(name)?)));
        Ok(AccessConfig { certificates: certificates.collect::<Result<_, Mistake>>()? })
    }
}

impl GrantSection {
    fn build(&self, name: &str) -> Result<Grant, Mistake> {
        Actor::new(name).map_err(|error| (format!("access.certificates.{name}"), error.to_string()))?;
        let scope = match &self.sites {
            None => Scope::all(),
            Some(sites) if (1..=SCOPE_SITES_MAX).contains(&sites.len()) => Scope::of(sites.iter().cloned()),
            Some(sites) => {
                let reason = format!("has {} sites; name 1 to {SCOPE_SITES_MAX}, or leave it out for all", sites.len());
                return Err((format!("access.certificates.{name}.sites"), reason));
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

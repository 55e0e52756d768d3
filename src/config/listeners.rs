//! `[listeners.NAME]`: where the node is reached beside `[http]`, and under which rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use klaxon_api::http::{Serves, TlsFiles, Trust};
use serde::{Deserialize, Serialize};

use super::collect::Mistake;

/// The most listeners beside `[http]`.
const LISTENERS_MAX: usize = 16;
/// The most bytes in the name of one.
const NAME_BYTES_MAX: usize = 32;

/// Where the node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ListenersSection(BTreeMap<String, ListenerSection>);

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenerSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ca_file: Option<PathBuf>,
    client_certificate_required: bool,
    insecure: bool,
    serves: Serves,
}

/// A listener as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerPlan {
    /// What the settings call it.
    pub name: String,
    /// The address.
    pub listen: SocketAddr,
    /// Who may read and report there without being known by name.
    pub trust: Trust,
    /// With what it speaks TLS, if it does.
    pub tls: Option<TlsFiles>,
    /// What is served there.
    pub serves: Serves,
}

impl ListenersSection {
    /// The listeners; or the setting that is wrong, and why. `local` is who is trusted on a loopback address without TLS.
    pub(super) fn build(&self, local: Trust) -> Result<Vec<ListenerPlan>, Mistake> {
        if self.0.len() > LISTENERS_MAX {
            return Err((
                "listeners".to_owned(),
                format!("has {} sections, at most {LISTENERS_MAX} are allowed", self.0.len()),
            ));
        }
        self.0.iter().map(|(name, section)| section.build(name, local)).collect()
    }
}

impl ListenerSection {
    fn build(&self, name: &str, local: Trust) -> Result<ListenerPlan, Mistake> {
        let key = |key: &str| format!("listeners.{name}.{key}");
        let wrong = |at: &str, reason: &str| Err((key(at), reason.to_owned()));
        let is_word = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_word) {
            let reason = format!("is no name of at most {NAME_BYTES_MAX} ASCII letters, digits, - and _");
            return Err((format!("listeners.{name}"), reason));
        }
        let Some(listen) = self.listen else { return wrong("listen", "is missing, such as 0.0.0.0:7781") };
        let tls = match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: self.client_ca_file.clone(),
                client_required: self.client_certificate_required,
            }),
            (Some(_), None) => return wrong("key_file", "is missing; certificate_file needs it"),
            (None, Some(_)) => return wrong("certificate_file", "is missing; key_file needs it"),
            (None, None) => None,
        };
        match () {
            () if self.client_ca_file.is_some() && tls.is_none() => {
                return wrong("client_ca_file", "means nothing without certificate_file");
            }
            () if self.client_certificate_required && self.client_ca_file.is_none() => {
                return wrong("client_certificate_required", "means nothing without client_ca_file");
            }
            () if self.insecure && tls.is_some() => {
                return wrong(
                    "insecure",
                    "contradicts certificate_file: with TLS, whoever comes shows a token or a certificate",
                );
            }
            () if !self.insecure && tls.is_none() && !listen.ip().is_loopback() => {
                let reason = "can be reached from other hosts, so it needs TLS (certificate_file, key_file); or say insecure = true, \
                              and whoever reaches it may read and report, and can listen to tokens";
                return wrong("listen", reason);
            }
            () => {}
        }
        let trust = match () {
            () if self.insecure => Trust::Anybody,
            () if tls.is_none() => local,
            () => Trust::Nobody,
        };
        Ok(ListenerPlan { name: name.to_owned(), listen, trust, tls, serves: self.serves })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use klaxon_api::http::Trust;

    use super::super::Config;

    #[test]
    fn what_contradicts_itself_is_named() {
        let error = |text: &str| Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string();
        let key = error("[listeners.noc]\nlisten = \"0.0.0.0:7781\"\ncertificate_file = \"c.pem\"\n");
        assert_eq!(key, "k.toml:1: listeners.noc.key_file: is missing; certificate_file needs it");
        let open = error("[listeners.noc]\nlisten = \"0.0.0.0:7781\"\n");
        assert!(open.starts_with("k.toml:2: listeners.noc.listen: can be reached from other hosts, so it needs TLS"), "{open}");
        let unused = error("[listeners.noc]\nlisten = \"127.0.0.1:0\"\nclient_ca_file = \"ca.pem\"\n");
        assert_eq!(unused, "k.toml:3: listeners.noc.client_ca_file: means nothing without certificate_file");
        let nowhere = error("[listeners.noc]\ninsecure = true\n");
        assert_eq!(nowhere, "k.toml:1: listeners.noc.listen: is missing, such as 0.0.0.0:7781");
        let name = error("[listeners.\"a b\"]\nlisten = \"127.0.0.1:0\"\n");
        assert!(name.contains("is no name"), "{name}");
    }

    #[test]
    fn only_who_is_on_this_host_is_trusted_unless_it_is_said() {
        let trust = |text: &str| {
            let text = format!("{text}certificate_file = \"c\"\nkey_file = \"k\"\n").replace("-tls", "");
            let text = if text.contains("plain") { text[..text.find("plain").expect("is there")].to_owned() } else { text };
            Config::parse(&text, Path::new("k.toml")).expect("is sound").listeners().expect("is sound")[0].trust
        };
        assert_eq!(trust("[listeners.a]\nlisten = \"127.0.0.1:0\"\n"), Trust::Nobody);
        assert_eq!(trust("[listeners.a]\nlisten = \"127.0.0.1:0\"\nplain"), Trust::Local);
        assert_eq!(trust("[http]\ntrust_loopback = false\n[listeners.a]\nlisten = \"127.0.0.1:0\"\nplain"), Trust::Nobody);
        assert_eq!(trust("[listeners.a]\nlisten = \"0.0.0.0:0\"\ninsecure = true\nplain"), Trust::Anybody);
    }
}

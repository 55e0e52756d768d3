//! `webhook = { … }` of a receiver: where it is told by HTTP POST, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hyper::header::HeaderName;
use klaxon_api::notify::WebhookConfig;
use klaxon_api::notify::webhook::{Secret, Shape, Word};
use serde::{Deserialize, Serialize, Serializer};

use super::collect::Mistake;
use super::units::Span;

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookForm {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown_address")]
    url: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    form: Option<Form>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer: Option<Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer_file: Option<PathBuf>,
    headers: BTreeMap<String, Hidden>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    Klaxon,
    Alertmanager,
}

/// A text that is read and never written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
struct Hidden(Secret);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(Secret(text))
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

fn shown_address<S: Serializer>(url: &Option<Hidden>, serializer: S) -> Result<S::Ok, S::Error> {
    let target = url.as_ref().map(|Hidden(url)| WebhookConfig::new(Word::Said(url.clone())).target());
    serializer.serialize_str(&target.unwrap_or_default())
}

impl WebhookForm {
    /// As the notifier takes it, or the key that is wrong and why.
    pub(super) fn build(&self) -> Result<WebhookConfig, Mistake> {
        let wrong = |key: &str, reason: &str| (key.to_owned(), reason.to_owned());
        let address = word(self.url.as_ref(), self.url_file.as_ref()).map_err(|reason| wrong("url", reason))?;
        let address = address.ok_or_else(|| wrong("url", "is missing"))?;
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, Hidden(value)) in &self.headers {
            let name: HeaderName = name.parse().map_err(|_| ("headers".to_owned(), format!("{name:?} is no header's name")))?;
            headers.push((name, value.clone()));
        }
        let defaults = WebhookConfig::new(address);
        let config = WebhookConfig {
            shape: self.form.map_or(defaults.shape, |form| match form {
                Form::Klaxon => Shape::Klaxon,
                Form::Alertmanager => Shape::Alertmanager,
            }),
            secret: word(self.secret.as_ref(), self.secret_file.as_ref()).map_err(|reason| wrong("secret", reason))?,
            bearer: word(self.bearer.as_ref(), self.bearer_file.as_ref()).map_err(|reason| wrong("bearer", reason))?,
            headers,
            ca_file: self.ca_file.clone(),
            certificate_file: self.certificate_file.clone(),
            key_file: self.key_file.clone(),
            timeout: self.timeout.map_or(defaults.timeout, |span| span.0),
            window: self.window.unwrap_or(defaults.window),
            batch_max: self.batch_max.unwrap_or(defaults.batch_max),
            external_url: self.external_url.clone(),
            ..defaults
        };
        match config.mistake() {
            None => Ok(config),
            Some((key, reason)) => Err((key.to_owned(), reason)),
        }
    }
}

fn word(said: Option<&Hidden>, file: Option<&PathBuf>) -> Result<Option<Word>, &'static str> {
    match (said, file) {
        (Some(_), Some(_)) => Err("is given here and by a file; one is enough"),
        (Some(Hidden(secret)), None) => Ok(Some(Word::Said(secret.clone()))),
        (None, file) => Ok(file.cloned().map(Word::File)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use klaxon_api::notify::SinkConfig;

    use super::*;
    use crate::config::Config;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn what_is_secret_is_read_and_never_written() {
        let text = "[receivers.noc]\nwebhook = { url = \"https://u:hush@noc.example/hook?key=hush\", secret = \"hush\" }\n";
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        let shown = format!("{config:?} {}", serde_json::to_string(&config).expect("serializes"));
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("https://noc.example/hook"), "{shown}");
        let receivers = config.receivers.build().expect("is right");
        assert_eq!(receivers[0].sink.target(), "https://noc.example/hook");
    }

    #[test]
    fn all_that_can_be_said_is_taken() {
        let text = r#"
[receivers."noc/east".webhook]
url_file = "/etc/klaxon/url"
form = "alertmanager"
secret_file = "/etc/klaxon/secret"
bearer_file = "/etc/klaxon/token"
headers = { X-Scope = "a" }
ca_file = "/etc/klaxon/ca.pem"
certificate_file = "/etc/klaxon/cert.pem"
key_file = "/etc/klaxon/key.pem"
timeout = "5s"
window = 8
external_url = "https://klaxon.example"
"#;
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        let receivers = config.receivers.build().expect("is right");
        let SinkConfig::Webhook(webhook) = &receivers[0].sink else { panic!("{receivers:?}") };
        assert_eq!((webhook.shape, webhook.window), (Shape::Alertmanager, 8));
        assert_eq!(webhook.secret, Some(Word::File("/etc/klaxon/secret".into())));
        assert_eq!(webhook.headers[0].0, "x-scope");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let hook = |keys: &str| format!("[receivers.noc.webhook]\nurl = \"http://a/\"\n{keys}\n");
        let word = error(&hook("secret = \"a\"\nsecret_file = \"b\""));
        assert_eq!(word, "k.toml:3: receivers.noc.webhook.secret: is given here and by a file; one is enough");
        let window = error(&hook("window = 65"));
        assert_eq!(window, "k.toml:3: receivers.noc.webhook.window: must be between 1 and 64");
        let url = error("[receivers.noc.webhook]\nurl = \"noc.example\"\n");
        assert_eq!(url, "k.toml:2: receivers.noc.webhook.url: is no http:// or https:// address");
        let header = error(&hook("headers = { \"a b\" = \"c\" }"));
        assert!(header.contains("\"a b\" is no header's name"), "{header}");
        let unknown = error(&hook("urll = \"x\""));
        assert!(unknown.starts_with("k.toml:3: receivers.noc.webhook.urll: is no setting"), "{unknown}");
    }
}

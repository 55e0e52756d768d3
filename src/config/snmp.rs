//! `[snmp]`: who speaks SNMP with the node. The agent, the trap receiver and the receivers of notifications name these users.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klaxon_api::agent::oids::Root;
use klaxon_snmp::{AuthProtocol, Level, PrivProtocol, Secret, User, UserError};
use serde::{Deserialize, Serialize};

use super::agent::AgentSection;
use super::collect::Mistake;
use super::tables::TablesSection;

/// The most users.
const USERS_MAX: usize = 256;
/// The longest file with a password.
const PASSWORD_FILE_BYTES_MAX: u64 = 4096;

/// Who speaks SNMP with the node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnmpConfig {
    /// Whether MD5 and DES are taken, which protect nothing any more.
    pub allow_weak: bool,
    /// The users of SNMPv3, by name.
    pub users: BTreeMap<String, UserSection>,
    /// Whom the node answers.
    pub agent: AgentSection,
    /// Where KLAXON-ALARM-MIB hangs.
    pub root_oid: Root,
    /// What is shown.
    pub tables: TablesSection,
}

/// A user of SNMPv3.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserSection {
    /// How messages are authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthProtocol>,
    /// The password for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_password: Option<Secret>,
    /// The file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_password_file: Option<PathBuf>,
    /// How messages are hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivProtocol>,
    /// The password for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy_password: Option<Secret>,
    /// The file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy_password_file: Option<PathBuf>,
}

impl SnmpConfig {
    /// The users with their keys, or the setting that is wrong and why. Reads the files that hold passwords. It takes some
    /// milliseconds for each user, because keys are costly by intent.
    pub fn users(&self) -> Result<BTreeMap<String, User>, Mistake> {
        self.of_each(|name, passwords| User::new(name, passwords.auth(), passwords.privacy(), self.allow_weak))
    }

    /// How well each user protects what it sends, or the setting that is wrong and why; without the work of keys.
    pub(super) fn levels(&self) -> Result<BTreeMap<String, Level>, Mistake> {
        self.of_each(|name, passwords| User::check(name, passwords.auth(), passwords.privacy(), self.allow_weak))
    }

    fn of_each<T>(&self, make: impl Fn(&str, &Passwords) -> Result<T, UserError>) -> Result<BTreeMap<String, T>, Mistake> {
        if self.users.len() > USERS_MAX {
            return Err(("snmp.users".to_owned(), format!("has {} users, at most {USERS_MAX} are taken", self.users.len())));
        }
        let build = |(name, section): (&String, &UserSection)| {
            let of_user = |key: &str| format!("snmp.users.{name}{key}");
            let passwords = section.passwords().map_err(|(key, reason)| (of_user(&key), reason))?;
            let made = make(name, &passwords).map_err(|error| (of_user(""), error.to_string()))?;
            Ok((name.clone(), made))
        };
        self.users.iter().map(build).collect()
    }
}

/// How somebody proves and hides.
struct Passwords {
    auth: Option<(AuthProtocol, Secret)>,
    privacy: Option<(PrivProtocol, Secret)>,
}

impl Passwords {
    fn auth(&self) -> Option<(AuthProtocol, &Secret)> {
        self.auth.as_ref().map(|(protocol, password)| (*protocol, password))
    }

    fn privacy(&self) -> Option<(PrivProtocol, &Secret)> {
        self.privacy.as_ref().map(|(protocol, password)| (*protocol, password))
    }
}

impl UserSection {
    fn passwords(&self) -> Result<Passwords, Mistake> {
        let secret = |key: &str, needed: bool, word: &Option<Secret>, file: &Option<PathBuf>| {
            let password = password(needed, word.as_ref(), file.as_deref());
            password.map_err(|reason| (format!(".{key}"), reason))
        };
        let auth = secret("auth_password", self.auth.is_some(), &self.auth_password, &self.auth_password_file)?;
        let privacy = secret("privacy_password", self.privacy.is_some(), &self.privacy_password, &self.privacy_password_file)?;
        Ok(Passwords { auth: self.auth.zip(auth), privacy: self.privacy.zip(privacy) })
    }
}

/// The password that is given by word or by file; a protocol needs one, and nothing else does.
fn password(needed: bool, word: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, String> {
    match (needed, word, file) {
        (false, None, None) => Ok(None),
        (false, ..) => Err("is given for no protocol".to_owned()),
        (true, None, None) => Err("is needed for the protocol, here or by a file".to_owned()),
        (true, Some(_), Some(_)) => Err("is given here and by a file; one is enough".to_owned()),
        (true, Some(word), None) => Ok(Some(word.clone())),
        (true, None, Some(path)) => read(path).map(Some),
    }
}

/// What a file holds, without the line's end.
pub(super) fn read(path: &Path) -> Result<Secret, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > PASSWORD_FILE_BYTES_MAX {
        return Err(format!("{} has more than {PASSWORD_FILE_BYTES_MAX} bytes", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Level;
    use crate::config::Config;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn users_have_passwords_here_or_in_files() {
        let file = tempfile::NamedTempFile::new().expect("can be made");
        std::fs::write(file.path(), "from-a-file\n").expect("is written");
        let text = format!(
            "[snmp.users.noc]\nauth = \"sha256\"\nauth_password_file = \"{}\"\nprivacy = \"aes256\"\nprivacy_password = \"hush-hush\"\n",
            file.path().display()
        );
        let config = Config::parse(&text, Path::new("k.toml")).expect("is right");
        assert_eq!(config.snmp.users().expect("are right")["noc"].level(), Level::AuthPriv);
        assert!(!format!("{config:?}").contains("hush-hush"));
    }

    #[test]
    fn a_user_that_cannot_be_says_why() {
        let user = |keys: &str| error(&format!("[snmp.users.noc]\n{keys}\n"));
        let missing = user("auth = \"sha256\"");
        assert!(missing.contains("snmp.users.noc.auth_password: is needed for the protocol"), "{missing}");
        let nowhere = user("auth = \"sha1\"\nauth_password_file = \"/nowhere/at/all\"");
        assert!(nowhere.contains("snmp.users.noc.auth_password: cannot read /nowhere/at/all"), "{nowhere}");
        let idle = user("auth_password = \"password\"");
        assert!(idle.contains("is given for no protocol"), "{idle}");
        let weak = user("auth = \"md5\"\nauth_password = \"password\"");
        assert!(weak.contains("MD5 is weak: it is taken only with `allow_weak = true`"), "{weak}");
        let short = user("auth = \"sha1\"\nauth_password = \"short\"");
        assert!(short.contains("has fewer than 8 bytes"), "{short}");
        let strange = user("auth = \"sha3\"");
        assert!(strange.starts_with("k.toml:2: snmp.users.noc.auth: "), "{strange}");
    }
}

//! `[snmp]`: who speaks SNMP with the node. The agent, the trap receiver and the receivers of notifications name these users.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use klaxon_api::agent::oids::Root;
use klaxon_snmp::{AuthProtocol, EngineId, Level, PrivProtocol, Secret, User, UserError};
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
    /// What it is called in messages; as here, if that is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The only engine that it is a user of, as hexadecimal digits. Another user may have its name elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_id: Option<String>,
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
        let users = self.of_each(|name, passwords| User::new(name, passwords.auth(), passwords.privacy(), self.allow_weak))?;
        let at_engine = |(key, user): (String, User)| match self.users[&key].engine_id() {
            Ok(Some(engine_id)) => Ok((key, user.at_engine(engine_id))),
            Ok(None) => Ok((key, user)),
            Err(reason) => Err((format!("snmp.users.{key}.engine_id"), reason)),
        };
        users.into_iter().map(at_engine).collect()
    }

    /// The users without their keys: enough to see that one is there.
    pub(super) fn names(&self) -> BTreeMap<String, User> {
        let named = |(key, section): (&String, &UserSection)| {
            let name = section.name.as_ref().unwrap_or(key);
            Some((key.clone(), User::new(name, None, None, false).ok()?))
        };
        self.users.iter().filter_map(named).collect()
    }

    /// How well each user protects what it sends, or the setting that is wrong and why; without the work of keys.
    pub(super) fn levels(&self) -> Result<BTreeMap<String, Level>, Mistake> {
        self.of_each(|name, passwords| User::check(name, passwords.auth(), passwords.privacy(), self.allow_weak))
    }

    fn of_each<T>(&self, make: impl Fn(&str, &Passwords) -> Result<T, UserError>) -> Result<BTreeMap<String, T>, Mistake> {
        if self.users.len() > USERS_MAX {
            return Err(("snmp.users".to_owned(), format!("has {} users, at most {USERS_MAX} are taken", self.users.len())));
        }
        let build = |(user, section): (&String, &UserSection)| {
            let of_user = |key: &str| format!("snmp.users.{user}{key}");
            let passwords = section.passwords().map_err(|(key, reason)| (of_user(&key), reason))?;
            let name = section.name.as_ref().unwrap_or(user);
            let made = make(name, &passwords).map_err(|error| (of_user(section.key_of(&error)), error.to_string()))?;
            Ok((user.clone(), made))
        };
        self.users.iter().map(build).collect()
    }

    /// The first user of the agent who is none of it, because engines of others are meant.
    pub(super) fn foreigner(&self) -> Option<Mistake> {
        let foreign = |name: &&String| self.users.get(*name).is_some_and(|user| user.engine_id.is_some());
        let name = self.agent.users.keys().find(foreign)?;
        let reason = format!("{name:?} is a user at another engine: snmp.users.{name}.engine_id is set");
        Some((format!("snmp.agent.users.{name}"), reason))
    }

    /// The first user that cannot be told from another, or is at no engine that there can be, and why. Needs no keys.
    pub(super) fn ambiguity(&self) -> Option<(String, String)> {
        let mut names = HashMap::new();
        self.users.iter().find_map(|(key, section)| {
            let engine_id = match section.engine_id() {
                Ok(engine_id) => engine_id,
                Err(reason) => return Some((format!("snmp.users.{key}.engine_id"), reason)),
            };
            let name = section.name.as_ref().unwrap_or(key);
            let other = names.insert((name, engine_id), key)?;
            let reason = format!("cannot be told from snmp.users.{other}: both are {name:?} at the same engines");
            Some((format!("snmp.users.{key}"), reason))
        })
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
            let suffix = if word.is_none() && file.is_some() { "_file" } else { "" };
            password.map_err(|reason| (format!(".{key}{suffix}"), reason))
        };
        let auth = secret("auth_password", self.auth.is_some(), &self.auth_password, &self.auth_password_file)?;
        let privacy = secret("privacy_password", self.privacy.is_some(), &self.privacy_password, &self.privacy_password_file)?;
        Ok(Passwords { auth: self.auth.zip(auth), privacy: self.privacy.zip(privacy) })
    }

    /// The key that is to blame, behind that of the user.
    fn key_of(&self, error: &UserError) -> &'static str {
        match error {
            UserError::Password("authentication") if self.auth_password.is_none() => ".auth_password_file",
            UserError::Password("authentication") => ".auth_password",
            UserError::Password(_) if self.privacy_password.is_none() => ".privacy_password_file",
            UserError::Password(_) => ".privacy_password",
            _ => "",
        }
    }

    /// The only engine that it is a user of, if there is one.
    fn engine_id(&self) -> Result<Option<EngineId>, String> {
        let wrong = "is no engine id: 5 to 32 octets as hexadecimal digits, neither all 0 nor all f";
        let parse = |digits: &String| EngineId::parse(digits).ok_or_else(|| wrong.to_owned());
        self.engine_id.as_ref().map(parse).transpose()
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
        assert_eq!(config.users().expect("are right")["noc"].level(), Level::AuthPriv);
        assert!(!format!("{config:?}").contains("hush-hush"));
    }

    #[test]
    fn a_user_that_cannot_be_says_why() {
        let user = |keys: &str| error(&format!("[snmp.users.noc]\n{keys}\n"));
        let missing = user("auth = \"sha256\"");
        assert!(missing.starts_with("k.toml:1: snmp.users.noc.auth_password: is needed for the protocol"), "{missing}");
        let nowhere = user("auth = \"sha1\"\nauth_password_file = \"/nowhere/at/all\"");
        assert!(nowhere.starts_with("k.toml:3: snmp.users.noc.auth_password_file: cannot read /nowhere/at/all"), "{nowhere}");
        let two = user("auth = \"sha1\"\nauth_password = \"password\"\nprivacy_password_file = \"/nowhere\"");
        assert_eq!(two, "k.toml:4: snmp.users.noc.privacy_password_file: is given for no protocol");
        let idle = user("auth_password = \"password\"");
        assert!(idle.contains("is given for no protocol"), "{idle}");
        let weak = user("auth = \"md5\"\nauth_password = \"password\"");
        assert!(weak.contains("MD5 is weak: it is taken only with `allow_weak = true`"), "{weak}");
        let short = user("auth = \"sha1\"\nauth_password = \"short\"");
        let expected = "the password for authentication has fewer than 8 bytes";
        assert_eq!(short, format!("k.toml:3: snmp.users.noc.auth_password: {expected}"));
        let file = tempfile::NamedTempFile::new().expect("can be made");
        std::fs::write(file.path(), "short").expect("is written");
        let short = user(&format!("auth = \"sha1\"\nauth_password_file = {:?}", file.path()));
        assert_eq!(short, format!("k.toml:3: snmp.users.noc.auth_password_file: {expected}"));
        let strange = user("auth = \"sha3\"");
        assert!(strange.starts_with("k.toml:2: snmp.users.noc.auth: "), "{strange}");
        let nowhere = user("engine_id = \"80\"");
        assert!(nowhere.starts_with("k.toml:2: snmp.users.noc.engine_id: is no engine id"), "{nowhere}");
    }

    #[test]
    fn what_is_wrong_with_a_secret_does_not_tell_it() {
        for (text, place) in [
            ("[snmp.users.noc]\nauth = \"sha1\"\nauth_password = 4711471147\n", "k.toml:3: snmp.users.noc.auth_password: "),
            ("[snmp.users.noc]\nauth_password = [\"4711471147\"]\n", "k.toml:2: snmp.users.noc.auth_password: "),
            ("[snmp.users.noc]\nauth_password = 47114711-47\n", "k.toml:2: "),
            ("[snmp.users.noc]\nauth_password = x47114711\n", "k.toml:2: "),
            ("[traps]\n\ncommunities = [4711471147]\n", "k.toml:3: traps.communities: "),
            ("[[snmp.agent.communities]]\ncommunity = 4711471147\n", "k.toml:2: snmp.agent.communities.community: "),
            ("[receivers.a.snmp]\ncommunity = 4711471147\n", "k.toml:2: receivers.a.snmp.community: "),
            ("[receivers.a.webhook]\nsecret = 4711471147\n", "k.toml:2: receivers.a.webhook.secret: "),
        ] {
            let told = error(text);
            assert!(told.starts_with(place) && !told.contains("4711"), "{told}");
        }
        let with = |word: &str| {
            let users = format!("[snmp.users.noc]\nauth = \"sha1\"\nauth_password = \"password{word}\"\n");
            let communities = format!("[[snmp.agent.communities]]\ncommunity = \"{word}\"\n");
            Config::parse(&(users + &communities), Path::new("k.toml")).expect("is right")
        };
        let changes = Config::reloadable_from(&with("1"), &with("2")).expect("may change");
        assert_eq!(changes.keys, ["snmp.agent.communities", "snmp.users.noc.auth_password"]);
    }

    #[test]
    fn a_name_may_be_of_several_users_at_different_engines() {
        let users = |one: &str, other: &str| {
            format!("[snmp.users.a]\nname = \"noc\"\n{one}\n[snmp.users.b]\nname = \"noc\"\n{other}\n")
        };
        let at = "engine_id = \"0x8000000001\"";
        let config = Config::parse(&users("", at), Path::new("k.toml")).expect("is right");
        let built = config.users().expect("are right");
        assert!(built["a"].engine_id().is_none() && built["b"].engine_id().is_some());
        let same = error(&users(at, "engine_id = \"8000000001\""));
        assert!(same.contains("snmp.users.b: cannot be told from snmp.users.a"), "{same}");
    }
}

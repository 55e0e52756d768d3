//! `[snmp.agent]`: whom the node answers when it is asked by SNMP, and what they see.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use klaxon_api::agent::oids::Root;
use klaxon_schemas::names::Site;
use klaxon_snmp::{Access, AgentConfig, Level, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, Oid, Secret, System, User, View, Who};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::collect::Mistake;
use super::snmp::{SnmpConfig, read};
use super::units::Size;

/// What travels in one piece over Ethernet: 1500 less the headers of IPv4 and UDP.
const IN_ONE_PIECE_BYTES: usize = 1472;
/// The most communities.
const COMMUNITIES_MAX: usize = 64;
/// The longest community.
const COMMUNITY_BYTES_MAX: usize = 255;
/// The most views.
const VIEWS_MAX: usize = 64;
/// The most subtrees of a view.
const SUBTREES_MAX: usize = 64;
/// The longest text about the system (RFC 3418, DisplayString).
const TEXT_BYTES_MAX: usize = 255;
/// The community that is taken if nobody names one, from this host only.
const COMMUNITY_BY_DEFAULT: &str = "public";

/// Whom the node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSection {
    /// Whether anybody is answered.
    pub enabled: bool,
    /// Where UDP is listened on.
    pub listen: SocketAddr,
    /// Who may ask in SNMPv1 and v2c. If this is not set: `public` where only this host can ask, and nobody elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<CommunitySection>>,
    /// Who may ask in SNMPv3, of `snmp.users`.
    pub users: BTreeMap<String, UserAccess>,
    /// Parts of the tree by name.
    pub views: BTreeMap<String, ViewSection>,
    /// The largest response. If this is not set: what travels in one piece, which on loopback is all that a datagram holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_bytes_max: Option<Size>,
    /// What the kernel is asked for.
    pub receive_buffer: Size,
    /// sysContact.
    pub contact: String,
    /// sysName; the name of the host, if it is empty.
    pub name: String,
    /// sysLocation.
    pub location: String,
}

/// Whoever knows a community.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommunitySection {
    /// The word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community: Option<Secret>,
    /// The file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub community_file: Option<PathBuf>,
    /// What they see; all, if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Only reading: nobody has proved anything.
    pub access: Right,
}

/// What a user may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserAccess {
    /// What they see, and may set if they may set; all, if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Whether they may set.
    pub access: Right,
}

/// Whether somebody may set, or only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Only read.
    #[default]
    Read,
    /// Set, too.
    Write,
}

/// A part of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ViewSection {
    /// Subtrees that are seen.
    pub include: Vec<Subtree>,
    /// Subtrees that are not.
    pub exclude: Vec<Subtree>,
}

/// The root of a subtree, as `1.3.6.1.2.1.1`.
#[derive(Clone, PartialEq, Eq)]
pub struct Subtree(pub Oid);

/// An agent that is wanted.
#[derive(Debug, Clone)]
pub struct AgentPlan {
    /// How it is to be.
    pub config: AgentConfig,
    /// Another number if anything is other than it was, secrets in files too.
    pub fingerprint: u64,
}

/// Somebody who may ask.
pub(super) struct Person<'a> {
    name: Name<'a>,
    read: View,
    write: Option<View>,
}

enum Name<'a> {
    Community(Secret),
    User(&'a str),
}

impl Default for AgentSection {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1161)),
            communities: None,
            users: BTreeMap::new(),
            views: BTreeMap::new(),
            message_bytes_max: None,
            receive_buffer: Size::mib(4),
            contact: String::new(),
            name: String::new(),
            location: String::new(),
        }
    }
}

impl AgentSection {
    /// As the agent takes it, if there is to be one; or the setting that is wrong, and why. Reads the files that hold communities;
    /// `users` are those there are.
    pub(super) fn build(
        &self,
        snmp: &SnmpConfig,
        users: &BTreeMap<String, User>,
        site: &Site,
    ) -> Result<Option<AgentPlan>, Mistake> {
        let levels = users.iter().map(|(name, user)| (name.clone(), user.level())).collect();
        let people = self.check(&levels)?;
        if !self.enabled {
            return Ok(None);
        }
        let fingerprint = fingerprint(snmp, site, users, &people);
        let access = |Person { name, read, write }| {
            let who = match name {
                Name::Community(word) => Who::Community(word),
                Name::User(name) => Who::User(users.get(name)?.clone()),
            };
            Some(Access { who, read, write })
        };
        let config = AgentConfig {
            listen: self.listen,
            receive_buffer_bytes: usize::try_from(self.receive_buffer.0).unwrap_or(usize::MAX),
            message_bytes_max: self.message_bytes_max(),
            system: self.system(&snmp.root_oid, site),
            access: people.into_iter().filter_map(access).collect(),
        };
        Ok(Some(AgentPlan { config, fingerprint }))
    }

    /// The most bytes that travel in one piece to whoever can ask, unless something else is set.
    fn message_bytes_max(&self) -> usize {
        match &self.message_bytes_max {
            Some(size) => usize::try_from(size.0).unwrap_or(usize::MAX),
            None if is_loopback(self.listen) => MESSAGE_BYTES_MAX,
            None => IN_ONE_PIECE_BYTES,
        }
    }

    /// Who may ask, and for what; or the setting that is wrong, and why. `levels` are those of the users there are.
    pub(super) fn check(&self, levels: &BTreeMap<String, Level>) -> Result<Vec<Person<'_>>, Mistake> {
        let wrong = |key: &str, reason: String| Err((format!("snmp.agent.{key}"), reason));
        if !(Size(64 << 10)..=Size::mib(1023)).contains(&self.receive_buffer) {
            return wrong("receive_buffer", "must be between 64KiB and 1023MiB".to_owned());
        }
        if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&self.message_bytes_max()) {
            return wrong("message_bytes_max", format!("must be between {MESSAGE_BYTES_MIN}B and {MESSAGE_BYTES_MAX}B"));
        }
        let texts = [("contact", &self.contact), ("name", &self.name), ("location", &self.location)];
        if let Some((key, _)) = texts.into_iter().find(|(_, text)| text.len() > TEXT_BYTES_MAX) {
            return wrong(key, format!("has more than {TEXT_BYTES_MAX} bytes"));
        }
        let people = self.people(levels, &self.views()?)?;
        if self.enabled && people.is_empty() && !is_loopback(self.listen) {
            let reason = format!(
                "{} can be reached from other hosts, and nobody is named who may ask: name users in snmp.agent.users or communities \
                 in snmp.agent.communities, or take a loopback address such as 127.0.0.1:{}",
                self.listen,
                self.listen.port()
            );
            return wrong("listen", reason);
        }
        Ok(people)
    }

    fn system(&self, root: &Root, site: &Site) -> System {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        System {
            description: format!("Klaxon {}, alarms of the site {site}", env!("CARGO_PKG_VERSION")),
            // Where KLAXON-ALARM-MIB stands.
            object_id: root.oid(&[]),
            contact: self.contact.clone(),
            name: if self.name.is_empty() { host() } else { self.name.clone() },
            location: self.location.clone(),
        }
    }

    fn views(&self) -> Result<BTreeMap<&str, View>, Mistake> {
        if self.views.len() > VIEWS_MAX {
            return Err((
                "snmp.agent.views".to_owned(),
                format!("has {} views, at most {VIEWS_MAX} are taken", self.views.len()),
            ));
        }
        let build = |(name, section): (&'_ String, &ViewSection)| {
            let count = section.include.len() + section.exclude.len();
            match count {
                _ if section.include.is_empty() => {
                    Err((name.clone(), "includes nothing, and nobody would see anything".to_owned()))
                }
                SUBTREES_MAX.. if count > SUBTREES_MAX => {
                    Err((name.clone(), format!("has {count} subtrees, at most {SUBTREES_MAX} are taken")))
                }
                _ => Ok(View::new(&roots(&section.include), &roots(&section.exclude))),
            }
        };
        let named = |(name, reason): (String, String)| (format!("snmp.agent.views.{name}"), reason);
        self.views.iter().map(|(name, section)| Ok((name.as_str(), build((name, section)).map_err(named)?))).collect()
    }

    fn people(&self, levels: &BTreeMap<String, Level>, views: &BTreeMap<&str, View>) -> Result<Vec<Person<'_>>, Mistake> {
        let view = |key: &str, name: &Option<String>| match name {
            None => Ok(View::everything()),
            Some(name) => {
                let known = views.get(name.as_str()).cloned();
                known.ok_or_else(|| (key.to_owned(), format!("there is no view {name:?} in snmp.agent.views")))
            }
        };
        let mut people = Vec::new();
        for (section, word) in self.communities()? {
            let key = "snmp.agent.communities";
            if section.access == Right::Write {
                return Err((key.to_owned(), "a community may only read: whoever sets must be a user with privacy".to_owned()));
            }
            people.push(Person { name: Name::Community(word), read: view(key, &section.view)?, write: None });
        }
        for (name, section) in &self.users {
            let key = format!("snmp.agent.users.{name}");
            let level = levels.get(name).ok_or_else(|| (key.clone(), "there is no such user in snmp.users".to_owned()))?;
            let read = view(&key, &section.view)?;
            let write = (section.access == Right::Write).then(|| read.clone());
            if write.is_some() && *level != Level::AuthPriv {
                return Err((key, "may set only with authentication and privacy; give the user both in snmp.users".to_owned()));
            }
            people.push(Person { name: Name::User(name), read, write });
        }
        Ok(people)
    }

    /// The communities with their words.
    fn communities(&self) -> Result<Vec<(CommunitySection, Secret)>, Mistake> {
        let wrong = |reason: String| ("snmp.agent.communities".to_owned(), reason);
        let Some(sections) = &self.communities else {
            let public = (CommunitySection::default(), Secret(COMMUNITY_BY_DEFAULT.to_owned()));
            return Ok(if is_loopback(self.listen) { vec![public] } else { Vec::new() });
        };
        if sections.len() > COMMUNITIES_MAX {
            return Err(wrong(format!("has {}, at most {COMMUNITIES_MAX} are taken", sections.len())));
        }
        let mut all: Vec<(CommunitySection, Secret)> = Vec::new();
        for section in sections {
            let word = match (&section.community, &section.community_file) {
                (Some(word), None) => word.clone(),
                (None, Some(file)) => read(file).map_err(wrong)?,
                (None, None) => return Err(wrong("each has a community, or a community_file that holds it".to_owned())),
                (Some(_), Some(_)) => return Err(wrong("is given here and by a file; one is enough".to_owned())),
            };
            if !(1..=COMMUNITY_BYTES_MAX).contains(&word.0.len()) {
                return Err(wrong(format!("a community has 1 to {COMMUNITY_BYTES_MAX} bytes")));
            }
            if all.iter().any(|(_, other)| *other == word) {
                return Err(wrong("two of them are the same word".to_owned()));
            }
            all.push((section.clone(), word));
        }
        Ok(all)
    }
}

fn roots(subtrees: &[Subtree]) -> Vec<Oid> {
    subtrees.iter().map(|Subtree(root)| root.clone()).collect()
}

fn is_loopback(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

/// Of the settings, and of the secrets that are used, wherever they come from: a file may hold another one by now.
fn fingerprint(snmp: &SnmpConfig, site: &Site, users: &BTreeMap<String, User>, people: &[Person<'_>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    site.as_str().hash(&mut hasher);
    toml::to_string(snmp).expect("every setting has a TOML form").hash(&mut hasher);
    users.hash(&mut hasher);
    for person in people {
        if let Name::Community(word) = &person.name {
            word.hash(&mut hasher);
        }
    }
    hasher.finish()
}

impl fmt::Debug for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Subtree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Subtree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |error| serde::de::Error::custom(format!("{text:?} {error}"));
        Oid::from_str(&text).map(Self).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    const NOC: &str = "[snmp.users.noc]\nauth = \"sha256\"\nauth_password = \"password\"\n";

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    fn plan(text: &str) -> AgentPlan {
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        config.agent(&config.users().expect("are right")).expect("is right").expect("is wanted")
    }

    fn names(text: &str) -> Vec<String> {
        let name = |access: Access| match access.who {
            Who::Community(Secret(word)) => word,
            Who::User(user) => format!("{} {}", user.name(), access.write.is_some()),
        };
        plan(text).config.access.into_iter().map(name).collect()
    }

    #[test]
    fn the_community_that_everybody_knows_is_taken_on_this_host_only() {
        assert_eq!(names(""), ["public"]);
        assert_eq!(names("[snmp.agent]\nlisten = \"[::1]:1161\"\n"), ["public"]);
        assert_eq!(names("[snmp.agent]\ncommunities = []\n"), [""; 0]);
        let listen = "[snmp.agent]\nlisten = \"0.0.0.0:161\"\n";
        let open = error(listen);
        assert!(open.starts_with("k.toml:2: snmp.agent.listen: 0.0.0.0:161 can be reached from other hosts"), "{open}");
        assert!(open.contains("snmp.agent.users") && open.contains("127.0.0.1:161"), "{open}");
        assert_eq!(names(&format!("{listen}[snmp.agent.users.noc]\n{NOC}")), ["noc false"]);
        assert_eq!(names(&format!("{listen}[[snmp.agent.communities]]\ncommunity = \"public\"\n")), ["public"]);
    }

    #[test]
    fn who_may_set_is_a_user_with_privacy() {
        let noc = error(&format!("{NOC}[snmp.agent.users.noc]\naccess = \"write\"\n"));
        assert!(noc.contains("snmp.agent.users.noc: may set only with authentication and privacy"), "{noc}");
        let privacy = "privacy = \"aes256\"\nprivacy_password = \"hush-hush\"\n";
        assert_eq!(names(&format!("{NOC}{privacy}[snmp.agent.users.noc]\naccess = \"write\"\n")), ["public", "noc true"]);
        let word = error("[[snmp.agent.communities]]\ncommunity = \"x\"\naccess = \"write\"\n");
        assert!(word.contains("snmp.agent.communities: a community may only read"), "{word}");
        let nobody = error("[snmp.agent.users.nobody]\n");
        assert!(nobody.contains("snmp.agent.users.nobody: there is no such user in snmp.users"), "{nobody}");
    }

    #[test]
    fn views_are_of_subtrees_by_number() {
        let views = "[snmp.agent.views.some]\ninclude = [\"1.3.6.1\", \".1.3.9\"]\nexclude = [\"1.3.6.1.2\"]\n";
        let some = plan(&format!("{views}[[snmp.agent.communities]]\ncommunity = \"x\"\nview = \"some\"\n"));
        let oids = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("is one")).collect::<Vec<Oid>>();
        assert_eq!(some.config.access[0].read, View::new(&oids(&["1.3.6.1", "1.3.9"]), &oids(&["1.3.6.1.2"])));
        let other = error("[[snmp.agent.communities]]\ncommunity = \"x\"\nview = \"other\"\n");
        assert!(other.contains("there is no view \"other\" in snmp.agent.views"), "{other}");
        let name = error("[snmp.agent.views.v]\ninclude = [\"sysDescr\"]\n");
        assert!(name.contains("\"sysDescr\" is no object identifier such as 1.3.6.1.2.1.1"), "{name}");
        let empty = error("[snmp.agent.views.v]\nexclude = [\"1.3\"]\n");
        assert!(empty.contains("snmp.agent.views.v: includes nothing"), "{empty}");
    }

    #[test]
    fn a_secret_in_a_file_is_read_and_its_change_seen() {
        let file = tempfile::NamedTempFile::new().expect("can be made");
        let text = format!("[[snmp.agent.communities]]\ncommunity_file = \"{}\"\n", file.path().display());
        assert!(error(&text).contains("a community has 1 to 255 bytes"));
        std::fs::write(file.path(), "hush\n").expect("is written");
        assert_eq!(names(&text), ["hush"]);
        let before = plan(&text).fingerprint;
        assert_eq!(plan(&text).fingerprint, before);
        assert!(!format!("{:?}", plan(&text)).contains("hush"));
        std::fs::write(file.path(), "other\n").expect("is written");
        assert_ne!(plan(&text).fingerprint, before);
        let both = error("[[snmp.agent.communities]]\ncommunity = \"x\"\ncommunity_file = \"y\"\n");
        assert!(both.contains("one is enough"), "{both}");
        let twice = error("[[snmp.agent.communities]]\ncommunity = \"x\"\n[[snmp.agent.communities]]\ncommunity = \"x\"\n");
        assert!(twice.contains("two of them are the same word"), "{twice}");
    }

    #[test]
    fn a_plan_is_known_by_the_passwords_that_are_used() {
        let file = tempfile::NamedTempFile::new().expect("can be made");
        std::fs::write(file.path(), "password-1").expect("is written");
        let user = format!("[snmp.users.noc]\nauth = \"sha1\"\nauth_password_file = {:?}\n", file.path());
        let config = Config::parse(&(user + "[snmp.agent.users.noc]\n"), Path::new("k.toml")).expect("is right");
        let of = |users| config.agent(users).expect("is right").expect("is wanted").fingerprint;
        let before = config.users().expect("are right");
        // It is another one between two looks at the file.
        std::fs::write(file.path(), "password-2").expect("is written");
        assert_ne!(of(&before), of(&config.users().expect("are right")));
    }

    #[test]
    fn what_is_out_of_bounds_is_said_and_what_is_off_is_off() {
        let large = error("[snmp.agent]\nmessage_bytes_max = \"64KiB\"\n");
        assert_eq!(large, "k.toml:2: snmp.agent.message_bytes_max: must be between 484B and 65507B");
        let small = error("[snmp.agent]\nreceive_buffer = \"1B\"\n");
        assert_eq!(small, "k.toml:2: snmp.agent.receive_buffer: must be between 64KiB and 1023MiB");
        let long = error(&format!("[snmp.agent]\nlocation = \"{}\"\n", "x".repeat(256)));
        assert_eq!(long, "k.toml:2: snmp.agent.location: has more than 255 bytes");
        let sized = |lines: &str| plan(&format!("[snmp.agent]\n{lines}")).config.message_bytes_max;
        assert_eq!((sized(""), sized("message_bytes_max = \"2KiB\"\n")), (65507, 2048));
        assert_eq!(sized("listen = \"0.0.0.0:1161\"\ncommunities = [{ community = \"c\" }]\n"), 1472);
        let off = Config::parse("[snmp.agent]\nenabled = false\n", Path::new("k.toml")).expect("is right");
        assert!(off.agent(&BTreeMap::new()).expect("is right").is_none());
        let system = plan("[node]\nsite = \"depot-7\"\n[snmp.agent]\nname = \"n\"\n").config.system;
        assert_eq!((system.name.as_str(), system.description.contains("depot-7")), ("n", true));
    }
}

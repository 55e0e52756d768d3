//! Who may do what: rights, the roles that give them, and the sites to which they are limited.
//!
//! | role | reads | acts on alarms | reports | administers |
//! |---|---|---|---|---|
//! | reader | yes | | | |
//! | operator | yes | yes | | |
//! | publisher | | | yes | |
//! | admin | yes | yes | yes | yes |

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::names::{Actor, Site, Text, TokenName};
use crate::time::Timestamp;

/// The most tokens that are kept, those whose time is over with them.
pub const TOKENS_MAX: usize = 1000;
/// The most sites that a token may be limited to.
pub const SCOPE_SITES_MAX: usize = 64;

/// What there is to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// To see alarms, history and how the node is.
    Read,
    /// To act on alarms, shelves and suppressions.
    Operate,
    /// To send events and heartbeats.
    Publish,
    /// To say who may do what, and which nodes belong together.
    Administer,
}

impl Right {
    /// It in words, as the end of "may not …".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "act on alarms",
            Self::Publish => "report",
            Self::Administer => "administer",
        }
    }
}

/// A set of rights with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads.
    Reader,
    /// Reads, and acts on alarms.
    Operator,
    /// Reports, and sees nothing.
    Publisher,
    /// May do everything.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Operator, Self::Publisher, Self::Admin];

    /// Whether it gives `right`.
    pub fn may(self, right: Right) -> bool {
        match self {
            Self::Reader => right == Right::Read,
            Self::Operator => matches!(right, Right::Read | Right::Operate),
            Self::Publisher => right == Right::Publish,
            Self::Admin => true,
        }
    }

    /// How much it gives, where one of several counts: who sees nothing may do least.
    pub fn rank(self) -> u8 {
        match self {
            Self::Publisher => 0,
            Self::Reader => 1,
            Self::Operator => 2,
            Self::Admin => 3,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody may do: the rights of one role or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights([bool; Role::ALL.len()]);

impl Rights {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of `roles`.
    pub fn of(roles: impl IntoIterator<Item = Role>) -> Self {
        let mut rights = Self::none();
        for role in roles {
            rights.0[role as usize] = true;
        }
        rights
    }

    /// Whether `right` is among them.
    pub fn include(self, right: Right) -> bool {
        self.roles().any(|role| role.may(right))
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self == Self::none()
    }

    /// The roles that give them.
    pub fn roles(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.0[*role as usize])
    }
}

/// The sites that somebody's rights are limited to; all unless limited. Cloning shares them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope(Option<Arc<[Site]>>);

impl Scope {
    /// All sites.
    pub fn all() -> Self {
        Self(None)
    }

    /// These sites and no others.
    pub fn of(sites: impl IntoIterator<Item = Site>) -> Self {
        let mut sites: Vec<Site> = sites.into_iter().collect();
        sites.sort();
        sites.dedup();
        Self(Some(sites.into()))
    }

    /// Whether it is limited to nothing.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `site` is within it.
    pub fn includes(&self, site: &str) -> bool {
        self.sites().is_none_or(|sites| sites.binary_search_by(|other| other.as_str().cmp(site)).is_ok())
    }

    /// The sites, sorted, if it is limited.
    pub fn sites(&self) -> Option<&[Site]> {
        self.0.as_deref()
    }
}

/// A token, as it is kept: who shows it has its role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// What its bearer may do.
    pub role: Role,
    /// At these sites; at all if there are none, at most [`SCOPE_SITES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Site>,
    /// SHA-256 of what is shown, in hexadecimal digits.
    pub hash: String,
    /// Who made it.
    pub by: Actor,
    /// When, by the owner's wall clock.
    pub at: Timestamp,
    /// Until when it is good; for good if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
}

impl Token {
    /// Where its role holds.
    pub fn scope(&self) -> Scope {
        if self.sites.is_empty() { Scope::all() } else { Scope::of(self.sites.iter().cloned()) }
    }
}

/// A token that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenOrder {
    /// Its name: the actor of what its bearer does.
    pub name: TokenName,
    /// What its bearer may do.
    pub role: Role,
    /// At these sites; at all if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Site>,
    /// SHA-256 of what is shown, in hexadecimal digits.
    pub hash: String,
    /// Until when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
}

/// A token, as history tells of it: all but what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenNote {
    /// Its name.
    pub name: TokenName,
    /// What its bearer may do.
    pub role: Role,
    /// At these sites; at all if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Site>,
    /// Until when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl TokenNote {
    /// Of the token `name`.
    pub fn of(name: &TokenName, token: &Token) -> Self {
        Self { name: name.clone(), role: token.role, sites: token.sites.clone(), expires_at: token.expires_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_give_what_the_table_says() {
        let rights = |role: Role| [Right::Read, Right::Operate, Right::Publish, Right::Administer].map(|right| role.may(right));
        assert_eq!(rights(Role::Reader), [true, false, false, false]);
        assert_eq!(rights(Role::Operator), [true, true, false, false]);
        assert_eq!(rights(Role::Publisher), [false, false, true, false]);
        assert_eq!(rights(Role::Admin), [true; 4]);
    }

    #[test]
    fn a_scope_includes_its_sites_and_no_others() {
        let site = |name: &str| Site::new(name).expect("valid");
        let scope = Scope::of([site("b"), site("a"), site("b")]);
        assert!(scope.includes("a") && scope.includes("b") && !scope.includes("c") && !scope.includes("a/b"));
        assert_eq!(scope.sites().map(<[_]>::len), Some(2));
        assert!(Scope::all().includes("c"));
        assert!(!Scope::of([]).includes("a"), "limited to nothing is not unlimited");
    }
}

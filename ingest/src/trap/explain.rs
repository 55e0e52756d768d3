//! What would become of a datagram, and why: for those who write mappings, and for those who wonder.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use klaxon_schemas::event::Event;
use klaxon_schemas::names::Site;
use klaxon_snmp::{Inbound, Notification, Unreadable, User, Users, Version};

use super::devices::Devices;
use super::map::Mapper;
use super::mapping::{Judgement, Mappings, shown, type_name};

/// Explains datagrams, as a receiver with the same settings would read them.
#[derive(Debug)]
pub struct Explainer {
    mapper: Mapper,
    inbound: Inbound,
    /// Any, if there is none.
    communities: Vec<String>,
}

/// What a datagram is, and what becomes of it.
#[derive(Debug)]
pub struct Explained {
    /// What it says.
    pub notification: Notification,
    /// What files call its trap.
    pub trap_name: Option<String>,
    /// Its variables.
    pub variables: Vec<Variable>,
    /// What each rule for it says, in their order; none if nothing is for it.
    pub judgements: Vec<Judgement>,
    /// What it becomes.
    pub event: Event,
}

/// A variable, as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its OID.
    pub oid: String,
    /// What files call it.
    pub name: Option<String>,
    /// What SNMP calls the type of its value.
    pub type_name: &'static str,
    /// Its value.
    pub value: String,
}

impl Explainer {
    /// One for devices of `site`, unless `devices` knows better. It takes all versions and communities, and knows no users of v3.
    pub fn new(site: Site, devices: Devices, mappings: Mappings) -> Self {
        let inbound = Inbound::onlooker(Users::default());
        Self { mapper: Mapper::new(site, devices, mappings), inbound, communities: Vec::new() }
    }

    /// The same for a receiver that takes these versions, these communities (any, if there is none) and these users of v3.
    #[must_use]
    pub fn taking(self, versions: &[Version], communities: Vec<String>, users: Vec<User>) -> Self {
        Self { inbound: Inbound::onlooker(Users::new(users)).only(versions), communities, ..self }
    }

    /// What a datagram from `source` is, or why it is no notification that is taken. Those of v3 are checked and decrypted if their
    /// user is known; they are to be given in the order in which they came, because they tell the time.
    pub fn explain(&mut self, datagram: &[u8], source: SocketAddr) -> Result<Explained, String> {
        let communities = &self.communities;
        let is_welcome =
            |community: &[u8]| communities.is_empty() || communities.iter().any(|known| known.as_bytes() == community);
        let read = self.inbound.read(&Bytes::copy_from_slice(datagram), source.ip(), is_welcome, Instant::now());
        let notification = read.map_err(|refused| match refused.why {
            why @ Unreadable::UnknownUser { .. } => {
                format!("a message of SNMP v3 {why}: it can be neither checked nor decrypted; name the user in [snmp.users]")
            }
            why => why.to_string(),
        })?;
        let variables = notification.varbinds.iter().map(|varbind| Variable {
            oid: varbind.oid.to_string(),
            name: self.mapper.name_of(&varbind.oid),
            type_name: type_name(&varbind.value),
            value: shown(&varbind.value),
        });
        Ok(Explained {
            variables: variables.collect(),
            trap_name: self.mapper.name_of(&notification.trap_oid),
            judgements: self.mapper.judge(source, &notification),
            event: self.mapper.event(source, &notification),
            notification,
        })
    }
}

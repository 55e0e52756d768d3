//! What would become of a datagram, and why: for those who write mappings, and for those who wonder.

use std::net::SocketAddr;

use bytes::Bytes;
use klaxon_schemas::event::Event;
use klaxon_schemas::names::Site;
use klaxon_snmp::Notification;

use super::devices::Devices;
use super::map::Mapper;
use super::mapping::{Judgement, Mappings, shown, type_name};

/// Explains datagrams, as a receiver with the same settings would read them.
#[derive(Debug)]
pub struct Explainer {
    mapper: Mapper,
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
    /// One for devices of `site`, unless `devices` knows better.
    pub fn new(site: Site, devices: Devices, mappings: Mappings) -> Self {
        Self { mapper: Mapper::new(site, devices, mappings) }
    }

    /// What a datagram from `source` is, or why it is no notification.
    pub fn explain(&self, datagram: &[u8], source: SocketAddr) -> Result<Explained, String> {
        let notification =
            klaxon_snmp::decode(&Bytes::copy_from_slice(datagram), |_| true).map_err(|error| error.to_string())?;
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

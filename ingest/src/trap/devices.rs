//! The devices that are known: their sites and names, by address or network.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use klaxon_schemas::names::{Name, Rule, Site};

/// Rule of [`DeviceName`].
pub struct DeviceNameRule;
impl Rule for DeviceNameRule {
    const NAME: &'static str = "DeviceName";
    const BYTES_MAX: usize = 253;
    const ALLOWED: &'static str = "ASCII letters, digits and . _ : / -";
    fn allows(character: char) -> bool {
        character.is_ascii_alphanumeric() || "._:/-".contains(character)
    }
}
/// What a device is called in resources.
pub type DeviceName = Name<DeviceNameRule>;

/// What is known of the devices of a network, or of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// Whose they are.
    pub site: Option<Site>,
    /// What it is called.
    pub name: Option<DeviceName>,
}

/// Devices by network. The smallest network that says something counts, for site and name each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    networks: HashMap<IpNet, Device>,
    /// The lengths of prefixes that there are, the longest first.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
}

impl Devices {
    /// The site of an address, and its name.
    pub(super) fn find(&self, address: IpAddr) -> (Option<&Site>, Option<&DeviceName>) {
        let lengths = if address.is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        let (mut site, mut name) = (None, None);
        for length in lengths {
            let network = IpNet::new(address, *length).expect("is a length of this family").trunc();
            let Some(device) = self.networks.get(&network) else { continue };
            site = site.or(device.site.as_ref());
            name = name.or(device.name.as_ref());
            if site.is_some() && name.is_some() {
                break;
            }
        }
        (site, name)
    }
}

impl FromIterator<(IpNet, Device)> for Devices {
    /// What is said of a network twice counts as it was said first.
    fn from_iter<I: IntoIterator<Item = (IpNet, Device)>>(devices: I) -> Self {
        let mut all = Self::default();
        for (network, device) in devices {
            let known = all.networks.entry(network.trunc()).or_default();
            known.site = known.site.take().or(device.site);
            known.name = known.name.take().or(device.name);
            let lengths = if network.addr().is_ipv4() { &mut all.lengths_v4 } else { &mut all.lengths_v6 };
            if let Err(at) = lengths.binary_search_by(|length| network.prefix_len().cmp(length)) {
                lengths.insert(at, network.prefix_len());
            }
        }
        all
    }
}

/// An address, or a network such as `10.7.0.0/16`.
pub fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network.ok_or_else(|| format!("{text:?} is no address and no network such as 10.7.0.0/16 or 2001:db8::/32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_network_that_says_something_counts() {
        let device = |site: &str, name: &str| Device { site: site.parse().ok(), name: name.parse().ok() };
        let known = [
            ("10.0.0.0/8", device("wide", "")),
            ("10.7.0.0/16", device("depot-7", "")),
            ("10.7.0.3", device("", "sw-3")),
            ("2001:db8::/32", device("six", "")),
            ("10.7.0.4/32", device("four", "sw-4")),
        ];
        let devices: Devices = known.into_iter().map(|(text, device)| (network(text).expect("is one"), device)).collect();
        let find = |address: &str| {
            let (site, name) = devices.find(address.parse().expect("an address"));
            (site.map_or("-", |site| site.as_str()).to_owned(), name.map_or("-", |name| name.as_str()).to_owned())
        };
        let pair = |site: &str, name: &str| (site.to_owned(), name.to_owned());
        assert_eq!(find("10.9.0.3"), pair("wide", "-"));
        assert_eq!(find("10.7.0.3"), pair("depot-7", "sw-3"));
        assert_eq!(find("10.7.0.4"), pair("four", "sw-4"));
        assert_eq!(find("2001:db8::7"), pair("six", "-"));
        assert_eq!(find("192.0.2.1"), pair("-", "-"));
        assert!(network("10.7.0.0/33").is_err() && network("sw-3").is_err());
    }
}

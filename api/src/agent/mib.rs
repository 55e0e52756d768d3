//! The MIB module for a manager, with the root that is configured.

use klaxon_schemas::mib::KLAXON_ALARM_MIB;

use super::oids::Root;

/// The arcs of `enterprises`.
const ENTERPRISES: usize = 6;

/// KLAXON-ALARM-MIB as it hangs at `root`.
pub fn mib(root: &Root) -> String {
    KLAXON_ALARM_MIB.replacen(&place(&Root::default()), &place(root), 1)
}

/// The root as the module writes it.
fn place(root: &Root) -> String {
    let numbers: Vec<String> = root.arcs()[ENTERPRISES..].iter().map(u32::to_string).collect();
    format!("::= {{ enterprises {} }}", numbers.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_in_it_once() {
        assert_eq!(KLAXON_ALARM_MIB.matches(&place(&Root::default())).count(), 1);
        assert_eq!(mib(&Root::default()), KLAXON_ALARM_MIB);
        let other = mib(&"1.3.6.1.4.1.32473.5".parse().expect("is one"));
        assert!(other.contains("::= { enterprises 32473 5 }"), "{other:.2000}");
        assert!(!other.contains("8072"));
    }
}

//! A notification before it is sent, and how it is made smaller.

use klaxon_snmp::{Oid, Outgoing, Value, Varbind};

use crate::agent::values;

/// Texts are not cut shorter than this to make room.
const TEXT_BYTES_MIN: usize = 16;
/// What stands where a text was cut.
const CUT: &str = "…";

/// A notification, and what of it may go when there is no room. First what is there beside the duty goes, the last first; then
/// the longest texts are cut, and then the longest names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    pub(super) outgoing: Outgoing,
    /// Variables from here on may be left out.
    required: usize,
    /// Which are texts for people.
    texts: Vec<usize>,
    /// Which are names: cut last, because something is looked up by them.
    names: Vec<usize>,
}

impl Draft {
    pub(super) fn new(trap_oid: Oid) -> Self {
        let outgoing = Outgoing { trap_oid, varbinds: Vec::with_capacity(32) };
        Self { outgoing, required: 0, texts: Vec::new(), names: Vec::new() }
    }

    /// A variable that must be there.
    pub(super) fn put(&mut self, oid: Oid, value: Value) {
        debug_assert_eq!(self.required, self.outgoing.varbinds.len(), "what must be there comes first");
        self.required += 1;
        self.outgoing.varbinds.push(Varbind { oid, value });
    }

    /// A text for people that must be there; as long as there is room.
    pub(super) fn put_text(&mut self, oid: Oid, text: Value) {
        self.texts.push(self.outgoing.varbinds.len());
        self.put(oid, text);
    }

    /// A name that must be there.
    pub(super) fn put_name(&mut self, oid: Oid, name: Value) {
        self.names.push(self.outgoing.varbinds.len());
        self.put(oid, name);
    }

    /// A variable that is there if there is room.
    pub(super) fn put_extra(&mut self, oid: Oid, value: Value) {
        self.outgoing.varbinds.push(Varbind { oid, value });
    }

    /// One more that must be there, behind the others.
    pub(super) fn insert_required(&mut self, varbind: Varbind) {
        self.outgoing.varbinds.insert(self.required, varbind);
        self.required += 1;
    }

    /// Makes it at least so many bytes smaller. Whether that could be done.
    pub(super) fn shrink(&mut self, bytes: usize) -> bool {
        let mut left = bytes;
        while left > 0 && self.outgoing.varbinds.len() > self.required {
            let gone = self.outgoing.varbinds.pop().expect("is longer than nothing");
            left = left.saturating_sub(bytes_min(&gone));
        }
        let varbinds = &mut self.outgoing.varbinds;
        left = shorten(varbinds, &self.texts, left);
        left = shorten(varbinds, &self.names, left);
        left == 0
    }
}

/// Cuts the longest of these until `left` bytes are saved, or none is longer than the least. How many are left to be saved.
fn shorten(varbinds: &mut [Varbind], which: &[usize], mut left: usize) -> usize {
    while left > 0 {
        let length = |index: &usize| match &varbinds[*index].value {
            Value::OctetString(bytes) => bytes.len(),
            _ => 0,
        };
        let mut lengths: Vec<(usize, usize)> = which.iter().map(|index| (length(index), *index)).collect();
        lengths.sort_unstable_by(|one, other| other.cmp(one));
        let Some(&(longest, index)) = lengths.first().filter(|(longest, _)| *longest > TEXT_BYTES_MIN) else {
            return left;
        };
        // Down to the length of the next, so that no text gives more than the others.
        let next = lengths.get(1).map_or(0, |(length, _)| *length).max(TEXT_BYTES_MIN);
        let wanted = longest.saturating_sub(left.max(CUT.len())).max(next.min(longest - 1)).max(TEXT_BYTES_MIN);
        let Value::OctetString(bytes) = &varbinds[index].value else { return left };
        let shorter = cut(&String::from_utf8_lossy(bytes), wanted).into_owned();
        let saved = longest - shorter.len();
        varbinds[index].value = Value::OctetString(shorter.into());
        left = left.saturating_sub(saved);
    }
    left
}

/// The text in at most so many bytes: cut between characters, with an ellipsis to say so if there is room for one.
pub(super) fn cut(text: &str, bytes_max: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= bytes_max {
        return text.into();
    }
    let mark = if bytes_max >= TEXT_BYTES_MIN { CUT } else { "" };
    format!("{}{mark}", values::cut(text, bytes_max - mark.len())).into()
}

/// An octet string.
pub(super) fn string(text: impl AsRef<str>) -> Value {
    Value::OctetString(text.as_ref().as_bytes().to_vec().into())
}

/// How many bytes a variable takes at least.
fn bytes_min(varbind: &Varbind) -> usize {
    let value = match &varbind.value {
        Value::OctetString(bytes) | Value::Opaque(bytes) => bytes.len(),
        Value::Oid(oid) => oid.arcs().len() - 1,
        Value::IpAddress(_) => 4,
        _ => 1,
    };
    // A tag and a length for the sequence, the name and the value.
    6 + varbind.oid.arcs().len() - 1 + value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(text: &str, repair: &str, name: &str) -> Draft {
        let oid = |last: u32| Oid::new(&[1, 3, 6, 1, last]);
        let mut draft = Draft::new(oid(0));
        draft.put(oid(1), Value::Integer(7));
        draft.put_text(oid(2), string(text));
        draft.put_text(oid(3), string(repair));
        draft.put_name(oid(4), string(name));
        draft.put_extra(oid(5), string("more"));
        draft.put_extra(oid(6), string("and more"));
        draft
    }

    fn texts(draft: &Draft) -> Vec<String> {
        let text = |varbind: &Varbind| match &varbind.value {
            Value::OctetString(bytes) => Some(String::from_utf8(bytes.to_vec()).expect("is cut between characters")),
            _ => None,
        };
        draft.outgoing.varbinds.iter().filter_map(text).collect()
    }

    #[test]
    fn what_need_not_be_there_goes_first_and_names_last() {
        let (text, repair, name) = ("ä".repeat(200), "ö".repeat(60), "n".repeat(100));
        let mut one = draft(&text, &repair, &name);
        assert!(one.shrink(10));
        assert_eq!(texts(&one), [&text, &repair, &name, "more"]);
        assert!(one.shrink(20));
        let shown = texts(&one);
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert!(shown[0].len() <= 400 && shown[0].len() >= 360, "{}", shown[0].len());
        assert!(one.shrink(300));
        let shown = texts(&one);
        assert!(shown[0].ends_with('…') && shown[2] == name, "{shown:?}");
        assert!(!one.shrink(1000), "there is not so much");
        let shown = texts(&one);
        assert!(shown.iter().all(|text| text.len() <= TEXT_BYTES_MIN && text.ends_with('…')), "{shown:?}");
    }

    #[test]
    fn any_amount_is_saved_or_it_is_said() {
        for bytes in 1..900 {
            let mut one = draft(&"€".repeat(150), &"x".repeat(200), &"n".repeat(300));
            let length = |draft: &Draft| draft.outgoing.varbinds.iter().map(bytes_min).sum::<usize>();
            let before = length(&one);
            if one.shrink(bytes) {
                assert!(before - length(&one) >= bytes, "{bytes}");
            } else {
                assert!(bytes > 800, "{bytes}");
            }
        }
    }

    #[test]
    fn a_cut_text_is_no_longer_than_asked_for() {
        for bytes_max in 0..40 {
            let text = "größer € 𝄞".repeat(4);
            assert!(cut(&text, bytes_max).len() <= bytes_max, "{bytes_max}");
        }
        assert_eq!(cut("kurz", 4), "kurz");
    }
}

//! What is asked for: `q.field`, `q.op`, `q.type` and `q.value`, each as often as there are conditions; and which page.
//!
//! `eq` finds a part of what is shown, as it always did (`host=controller` finds `host=controller-0`); `ne` is its contrary; the others
//! compare, severities by their rank. A list ends with the uuid of its last element as `marker` of the next page; `next` says beside it,
//! as `after`, where that stood, so that it can be followed whatever became of it.

use std::borrow::Cow;

use klaxon_schemas::starlingx::{severity_from_word, time_of};
use klaxon_schemas::time::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use utoipa::IntoParams;
use uuid::Uuid;

use super::super::params::{Params, word};
use super::super::problem::quoted;

/// The most elements on one page, and how many there are unless said otherwise.
pub(super) const LIMIT_MAX: usize = 2000;
/// The longest value of a condition.
const VALUE_BYTES_MAX: usize = 1024;
/// The longest `after`: no place in a list is longer.
const AFTER_BYTES_MAX: usize = 16 * 1024;
const OPERATORS: [(&str, Operator); 7] = [
    ("", Operator::Equal),
    ("eq", Operator::Equal),
    ("ne", Operator::NotEqual),
    ("lt", Operator::Less),
    ("le", Operator::LessOrEqual),
    ("gt", Operator::Greater),
    ("ge", Operator::GreaterOrEqual),
];
/// What a value may be said to be. All of them are compared as what they are shown as.
const TYPES: [(&str, ()); 6] = [("", ()), ("string", ()), ("integer", ()), ("float", ()), ("boolean", ()), ("datetime", ())];
const TRUTHS: [(&str, bool); 8] = [
    ("True", true),
    ("true", true),
    ("1", true),
    ("yes", true),
    ("False", false),
    ("false", false),
    ("0", false),
    ("no", false),
];
pub(super) const DIRECTIONS: [(&str, Direction); 2] = [("asc", Direction::Ascending), ("desc", Direction::Descending)];

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Uuid,
    Id,
    EntityType,
    Entity,
    Severity,
    Type,
    LogType,
    Status,
    Start,
    End,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ascending => "asc",
            Self::Descending => "desc",
        }
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) field: Field,
    pub(super) operator: Operator,
    pub(super) value: String,
}

impl Condition {
    /// Whether something of which `shown` is shown is picked.
    fn picks(&self, shown: &str) -> bool {
        let order = match (self.field, severity_from_word(shown), severity_from_word(&self.value)) {
            (Field::Severity, Some(shown), Some(asked)) => shown.cmp(&asked),
            _ => shown.cmp(&self.value),
        };
        match self.operator {
            Operator::Equal => self.is_in(shown),
            Operator::NotEqual => !self.is_in(shown),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
        }
    }

    fn is_in(&self, shown: &str) -> bool {
        match self.field {
            Field::Status | Field::LogType => shown == self.value,
            _ => shown.contains(&self.value),
        }
    }
}

/// What the description says of all lists: what [`Conditions`] and [`Paging`] take beside the names that differ.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it only describes")]
pub(super) struct OfLists {
    /// How each condition compares: `eq` (is a part of it, unless said otherwise), `ne`, `lt`, `le`, `gt`, `ge`.
    #[param(rename = "q.op", value_type = Option<Vec<String>>)]
    operators: (),
    /// What each value is; it makes no difference.
    #[param(rename = "q.type", value_type = Option<Vec<String>>)]
    types: (),
    /// What each compares with.
    #[param(rename = "q.value", value_type = Option<Vec<String>>)]
    values: (),
    /// The uuid of the last of the page before.
    #[param(value_type = Option<Uuid>)]
    marker: (),
    /// Where that stood, as `next` says it.
    #[param(value_type = Option<String>)]
    after: (),
}

/// All conditions of a request; all must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Conditions(Vec<Condition>);

impl Conditions {
    /// Takes those that are about `fields`, by their names.
    pub(super) fn take(params: &mut Params, fields: &'static [(&'static str, Field)]) -> Self {
        let named = params.many("q.field", |text| word(text, fields));
        let operators = params.many("q.op", |text| word(text, &OPERATORS));
        let types = params.many("q.type", |text| word(text, &TYPES));
        let values = params.many("q.value", |text| match text.len() {
            0 => Err("is empty".to_owned()),
            bytes if bytes > VALUE_BYTES_MAX => Err(format!("is {bytes} bytes long, at most {VALUE_BYTES_MAX} are allowed")),
            _ => Ok(text.to_owned()),
        });
        if params.is_refused() {
            return Self::default();
        }
        for (name, count) in [("q.value", values.len()), ("q.op", operators.len()), ("q.type", types.len())] {
            // What is said of no condition has its usual value in all of them.
            let may_be_absent = name != "q.value" && count == 0;
            if count != named.len() && !may_be_absent {
                params.refuse(name, format!("is given {count} times, and q.field {} times", named.len()));
                return Self::default();
            }
        }
        let operators = operators.into_iter().chain(std::iter::repeat(Operator::Equal));
        let conditions = named.into_iter().zip(operators).zip(values);
        let conditions: Vec<_> = conditions.map(|((field, operator), value)| Condition { field, operator, value }).collect();
        for condition in &conditions {
            if let Err(reason) = check(condition) {
                params.refuse("q.value", reason);
            }
        }
        Self(conditions)
    }

    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold of what is shown in each field.
    pub(super) fn pick<'a>(&self, shown: impl Fn(Field) -> Cow<'a, str>) -> bool {
        let of_content = self.0.iter().filter(|condition| !matches!(condition.field, Field::Start | Field::End));
        of_content.into_iter().all(|condition| condition.picks(&shown(condition.field)))
    }

    /// From when on, and before when.
    pub(super) fn span(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let times = |field| {
            let of_field = self.0.iter().filter(move |condition| condition.field == field);
            of_field.filter_map(|condition| Some((condition.operator, time_of(&condition.value)?)))
        };
        let behind = |time: Timestamp| time.saturating_add_micros(1);
        let from = times(Field::Start).map(|(operator, time)| if operator == Operator::Greater { behind(time) } else { time });
        let until = times(Field::End).map(|(operator, time)| if operator == Operator::Less { time } else { behind(time) });
        (from.max(), until.min())
    }

    /// The conditions as they stand in a link, each with an `&` behind it.
    fn link(&self, fields: &[(&'static str, Field)]) -> String {
        let mut link = String::new();
        for Condition { field, operator, value } in &self.0 {
            let name = fields.iter().find(|(_, known)| known == field).map_or("", |(name, _)| name);
            let operator = OPERATORS.iter().skip(1).find(|(_, known)| known == operator).map_or("eq", |(word, _)| word);
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            link.push_str(&format!("q.field={name}&q.op={operator}&q.type=&q.value={value}&"));
        }
        link
    }
}

/// Says why a condition cannot be one.
fn check(condition: &Condition) -> Result<(), String> {
    let value = &condition.value;
    let of_time = |allowed: &[Operator]| match time_of(value) {
        None => Err(format!("{} is no time such as 2026-11-22T08:19:34", quoted(value))),
        Some(_) if !allowed.contains(&condition.operator) => {
            Err("a time is where what is asked for begins or ends: use eq".to_owned())
        }
        Some(_) => Ok(()),
    };
    match condition.field {
        Field::Start => of_time(&[Operator::Equal, Operator::Greater, Operator::GreaterOrEqual]),
        Field::End => of_time(&[Operator::Equal, Operator::Less, Operator::LessOrEqual]),
        Field::Severity
            if !matches!(condition.operator, Operator::Equal | Operator::NotEqual) && severity_from_word(value).is_none() =>
        {
            Err(format!("{} is none of warning, minor, major, critical", quoted(value)))
        }
        _ => Ok(()),
    }
}

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paging {
    /// The uuid behind which it begins.
    pub(super) marker: Option<Uuid>,
    /// Where that one stood, as `next` says it.
    pub(super) after: Option<String>,
    /// How many at most.
    pub(super) limit: usize,
}

impl Paging {
    pub(super) fn take(params: &mut Params) -> Self {
        Self {
            marker: params.read("marker", uuid),
            after: params.text("after", AFTER_BYTES_MAX),
            limit: params.read("limit", limit).unwrap_or(LIMIT_MAX),
        }
    }
}

/// A page that was given, so that the link to the next can be made.
pub(super) struct Turned<'a> {
    /// Of which list, such as `alarms`.
    pub(super) list: &'static str,
    pub(super) base: &'a str,
    pub(super) conditions: &'a Conditions,
    pub(super) fields: &'static [(&'static str, Field)],
    /// By what it is sorted, and which way, if that can be asked for.
    pub(super) sort: Option<(&'a str, Direction)>,
    pub(super) limit: usize,
    /// What else was asked for, as it stands in a link, each with an `&` behind it.
    pub(super) more: String,
    pub(super) marker: Option<Uuid>,
    pub(super) after: Option<String>,
}

impl Turned<'_> {
    /// The link.
    pub(super) fn next(&self) -> String {
        let Self { list, base, limit, more, .. } = self;
        let conditions = self.conditions.link(self.fields);
        let sort = self.sort.map(|(key, direction)| format!("sort_key={key}&sort_dir={}&", direction.as_str()));
        let mut link = format!("{base}/v1/{list}?{conditions}{more}{}limit={limit}", sort.unwrap_or_default());
        if let Some(marker) = self.marker {
            link.push_str(&format!("&marker={marker}"));
        }
        if let Some(after) = &self.after {
            link.push_str(&format!("&after={}", utf8_percent_encode(after, NON_ALPHANUMERIC)));
        }
        link
    }
}

/// A uuid.
pub(super) fn uuid(text: &str) -> Result<Uuid, String> {
    Uuid::try_parse(text).map_err(|_| format!("{} is no UUID", quoted(text)))
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse::<i64>() {
        Ok(0) => Ok(LIMIT_MAX),
        Ok(number) if number > 0 => Ok(usize::try_from(number).unwrap_or(LIMIT_MAX).min(LIMIT_MAX)),
        Ok(_) => Err("must be positive".to_owned()),
        Err(_) => Err("is no whole number".to_owned()),
    }
}

/// Whether something is asked for.
pub(super) fn is_asked(params: &mut Params, name: &'static str) -> bool {
    params.word(name, &TRUTHS).unwrap_or_default()
}

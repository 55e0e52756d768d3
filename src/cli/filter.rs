//! Which alarms are meant: the filters of the API's list, for lists and for actions alike.

use clap::Args;
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;

use super::client::Query;
use super::time::Moment;

/// Whether something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Whether {
    /// Only what is so.
    True,
    /// Only what is not so.
    False,
    /// Both.
    Any,
}

impl Whether {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::False => "false",
            Self::Any => "any",
        }
    }
}

/// Which alarms are meant; what is not given matches all.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which alarms")]
pub(super) struct Filter {
    /// Of this site
    #[arg(long)]
    pub(super) site: Option<Site>,
    /// On this resource, or on what it contains
    #[arg(long)]
    pub(super) resource: Option<Resource>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) alarm_type: Option<AlarmType>,
    /// At least this urgent: indeterminate, warning, minor, major, critical
    #[arg(long, value_name = "SEVERITY")]
    pub(super) min_severity: Option<Severity>,
    /// Exactly this urgent
    #[arg(long, conflicts_with = "min_severity")]
    pub(super) severity: Option<Severity>,
    /// Cleared [without it: those that are not]
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "WHETHER")]
    pub(super) cleared: Option<Whether>,
    /// Acknowledged
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "WHETHER")]
    pub(super) acknowledged: Option<Whether>,
    /// Shelved
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "WHETHER")]
    pub(super) shelved: Option<Whether>,
    /// Of a suppressed type
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "WHETHER")]
    pub(super) suppressed: Option<Whether>,
    /// Not heard from
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "WHETHER")]
    pub(super) stale: Option<Whether>,
    /// With this in the text, resource or type, in whatever case
    #[arg(long)]
    pub(super) text: Option<String>,
    /// Raised after this: a time, or how long ago (2h)
    #[arg(long, value_name = "WHEN")]
    pub(super) raised_after: Option<Moment>,
    /// Raised before this
    #[arg(long, value_name = "WHEN")]
    pub(super) raised_before: Option<Moment>,
    /// Changed after this
    #[arg(long, value_name = "WHEN")]
    pub(super) changed_after: Option<Moment>,
    /// Changed before this
    #[arg(long, value_name = "WHEN")]
    pub(super) changed_before: Option<Moment>,
}

impl Filter {
    /// As the API's parameters.
    pub(super) fn query(&self) -> Query {
        let mut query = Query::default();
        query.add("site", self.site.as_ref());
        query.add("resource", self.resource.as_ref());
        query.add("alarm_type", self.alarm_type.as_ref());
        query.add("min_severity", self.min_severity);
        query.add("severity", self.severity);
        query.add("cleared", self.cleared.map(Whether::as_str));
        query.add("acknowledged", self.acknowledged.map(Whether::as_str));
        query.add("shelved", self.shelved.map(Whether::as_str));
        query.add("suppressed", self.suppressed.map(Whether::as_str));
        query.add("stale", self.stale.map(Whether::as_str));
        query.add("text", self.text.as_ref());
        query.add("raised_after", self.raised_after.map(Moment::past));
        query.add("raised_before", self.raised_before.map(Moment::past));
        query.add("changed_after", self.changed_after.map(Moment::past));
        query.add("changed_before", self.changed_before.map(Moment::past));
        query
    }
}

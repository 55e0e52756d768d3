//! Which alerts and silences are asked for. Parameters that mean nothing here are passed over, as Alertmanager does.

use klaxon_schemas::labels::{LABEL_MATCHERS_MAX, LabelMatcher, LabelSet, MatchOp};

use super::super::params::{FromParams, Params};
use super::super::problem::{Kind, Problem};
use super::RECEIVER;

/// Matchers, all of which must pick.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter(Vec<LabelMatcher>);

impl Filter {
    fn take(params: &mut Params) -> Self {
        let matchers = params.many("filter", |text| text.parse::<LabelMatcher>().map_err(|error| error.to_string()));
        if matchers.len() > LABEL_MATCHERS_MAX {
            params.refuse("filter", format!("is given more than {LABEL_MATCHERS_MAX} times"));
        }
        Self(matchers)
    }

    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it picks an alarm of this site with these labels.
    pub(super) fn picks_at(&self, labels: &LabelSet<'_>, site: &str) -> bool {
        self.0.iter().all(|matcher| matcher.picks_at(labels, site))
    }

    /// Whether it picks what has these labels.
    pub(super) fn picks(&self, labels: &LabelSet<'_>) -> bool {
        self.0.iter().all(|matcher| matcher.picks(labels))
    }
}

/// Which alerts are asked for; all, unless said otherwise.
#[derive(Debug, Clone)]
pub(super) struct AlertFilter {
    pub(super) labels: Filter,
    pub(super) active: bool,
    pub(super) silenced: bool,
    pub(super) inhibited: bool,
    pub(super) muted: bool,
    /// Whether the receiver that is asked for is the one there is.
    pub(super) receiver: bool,
}

impl FromParams for AlertFilter {
    fn take(params: &mut Params) -> Self {
        const TRUTHS: &[(&str, bool)] = &[("true", true), ("1", true), ("false", false), ("0", false)];
        let mut truth = |name| params.word(name, TRUTHS).unwrap_or(true);
        let [active, silenced, inhibited, muted] = ["active", "silenced", "inhibited", "muted"].map(&mut truth);
        // Nothing is ever unprocessed here: what is not active, silenced or suppressed does not exist.
        truth("unprocessed");
        let receiver = params.read("receiver", |pattern| {
            LabelMatcher::new("receiver", MatchOp::Matches, pattern).map_err(|error| error.to_string())
        });
        Self {
            labels: Filter::take(params),
            active,
            silenced,
            inhibited,
            muted,
            receiver: receiver.is_none_or(|receiver| receiver.takes(RECEIVER)),
        }
    }
}

/// Which silences are asked for.
#[derive(Debug, Clone)]
pub(super) struct SilenceFilter(pub(super) Filter);

impl FromParams for SilenceFilter {
    fn take(params: &mut Params) -> Self {
        Self(Filter::take(params))
    }
}

/// The query of a request, of which only what is known is looked at.
pub(super) struct Asked<T>(pub(super) T);

impl<T: FromParams, S: Sync> axum::extract::FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Problem> {
        let mut params = Params::of_query(parts.uri.query().unwrap_or_default())?;
        let value = T::take(&mut params);
        params.finish_lenient(Kind::InvalidParameter)?;
        Ok(Self(value))
    }
}

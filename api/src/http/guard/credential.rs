//! What a request shows to prove whose it is: a token, in one of the ways that programs know.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::http::problem::{Kind, Problem};

/// How OpenStack's and StarlingX's programs show theirs.
pub(crate) const X_AUTH_TOKEN: &str = "x-auth-token";
/// The largest header that is looked at: a token of Keystone may have some kilobytes.
const BYTES_MAX: usize = 16 * 1024;

/// A token, as it was shown. It is written into no log and no answer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Shown(String);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl Shown {
    /// The token that the headers show, if they show one: as `Authorization: Bearer`, as the password of `Authorization: Basic`
    /// (whatever the user's name), or as `X-Auth-Token`.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let shown = headers.get_all(AUTHORIZATION).iter().map(authorization);
        let mut shown = shown.chain(headers.get_all(X_AUTH_TOKEN).iter().map(|value| text(value).map(str::to_owned)));
        match (shown.next(), shown.next()) {
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(unauthorized("more than one token is shown; show one")),
            (Some(token), None) => match token? {
                token if token.is_empty() => Err(unauthorized("the token that is shown is empty")),
                token => Ok(Some(Self(token))),
            },
        }
    }

    /// The token.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

fn authorization(value: &HeaderValue) -> Result<String, Problem> {
    let (scheme, rest) = text(value)?.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(unauthorized("the header authorization is of another scheme than Bearer and Basic"));
    }
    let password = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let password = password.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, password)| password.to_owned());
    password.ok_or_else(|| unauthorized("the header authorization is no user and password in Base64 (RFC 7617)"))
}

fn text(value: &HeaderValue) -> Result<&str, Problem> {
    let text = value.to_str().ok().filter(|text| text.len() <= BYTES_MAX);
    text.ok_or_else(|| unauthorized("the token that is shown is no text of at most 16 KiB"))
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Kind::Unauthorized, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn shown(headers: &[(&'static str, &str)]) -> Result<Option<String>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), value.parse().expect("is a header value"));
        }
        let shown =
            Shown::of(&map).map_err(|problem| serde_json::to_value(&problem).expect("serializes")["detail"].to_string())?;
        Ok(shown.map(|shown| shown.secret().to_owned()))
    }

    #[test]
    fn a_token_is_found_however_it_is_shown() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert_eq!(shown(&[]), Ok(None));
        assert_eq!(shown(&[("authorization", "Bearer t")]), Ok(Some("t".to_owned())));
        assert_eq!(shown(&[("authorization", "bearer  t ")]), Ok(Some("t".to_owned())));
        assert_eq!(shown(&[("x-auth-token", "t")]), Ok(Some("t".to_owned())));
        assert_eq!(shown(&[("authorization", &basic("anybody:t:u"))]), Ok(Some("t:u".to_owned())));
        assert_eq!(shown(&[("authorization", &basic(":t"))]), Ok(Some("t".to_owned())));
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_passed_over() {
        for bad in ["t", "Bearer", "Bearer ", "Digest t", "Basic t", "Basic dXNlcg==", "Basic dXNlcjo="] {
            assert!(shown(&[("authorization", bad)]).is_err(), "{bad}");
        }
        assert!(shown(&[("x-auth-token", "")]).is_err());
        assert!(shown(&[("x-auth-token", &"t".repeat(BYTES_MAX + 1))]).is_err());
        assert!(shown(&[("x-auth-token", "t"), ("authorization", "Bearer t")]).is_err());
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", Shown("secret".to_owned())), "Shown");
    }
}

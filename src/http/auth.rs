//! `REST_TOKEN`.

use hyper::header::{AUTHORIZATION, HeaderMap};

use crate::config::Secret;

/// The error message for a request without the token.
pub(super) const TOKEN_REQUIRED: &str = "a token is required: send Authorization: Bearer <REST_TOKEN>";

/// Returns whether a request with these headers is allowed: if there is a token, it must send it.
pub(super) fn is_authorized(token: Option<&Secret>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let sent = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    sent.and_then(|sent| sent.split_at_checked(7)).is_some_and(|(scheme, sent)| {
        // The scheme's name is not secret, and its case does not matter.
        scheme.eq_ignore_ascii_case(b"bearer ") && token.matches(sent)
    })
}

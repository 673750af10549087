//! Answers to requests.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::schedules::Listing;
use crate::handle::QueryError;

/// What is sent back: whole, or as it is read.
pub type Body = Either<Full<Bytes>, Listing>;

/// Status, headers and body.
pub type Answer = Response<Body>;

const JSON: &str = "application/json";

/// A body of some type. Nobody may keep it or guess at its type.
pub fn whole(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    with_body(status, media_type, Either::Left(Full::new(body.into())))
}

fn with_body(status: StatusCode, media_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Nothing but a status.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = whole(status, JSON, Bytes::new());
    answer.headers_mut().remove(CONTENT_TYPE);
    answer
}

/// A value as JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => whole(status, JSON, body),
        // It fails for maps whose keys are no text, and there are none.
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written as JSON"),
    }
}

/// A list that is written while it is read.
pub fn listing(listing: Listing) -> Answer {
    with_body(StatusCode::OK, JSON, Either::Right(listing))
}

/// The answer to HEAD where GET would give a list.
pub fn listing_head() -> Answer {
    whole(StatusCode::OK, JSON, Bytes::new())
}

/// A page whose only script and style are those with the nonce, and that talks to nobody but this server.
pub fn page(status: StatusCode, html: String, nonce: &str) -> Answer {
    let mut answer = whole(status, "text/html; charset=utf-8", html);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    answer
}

/// What went wrong, as JSON.
pub fn error(status: StatusCode, message: &str) -> Answer {
    json(status, &json!({ "error": message }))
}

/// There is nothing at the request's path.
pub fn not_found() -> Answer {
    error(StatusCode::NOT_FOUND, "there is nothing at this path; see /openapi.json for what there is")
}

/// The request's method does not exist here.
pub fn not_allowed() -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

/// The request shows no token, or another one. `body` says so.
pub fn unauthorized(mut body: Answer) -> Answer {
    *body.status_mut() = StatusCode::UNAUTHORIZED;
    body.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    body
}

/// The engine did not answer.
pub fn unanswered(why: QueryError) -> Answer {
    let status = match why {
        QueryError::CursorExpired => StatusCode::GONE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, &why.to_string())
}

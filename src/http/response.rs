//! Builds responses.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::StatusCode;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use serde::Serialize;
use serde_json::json;

use super::schedules::Listing;
use crate::handle::QueryError;

/// A body in memory, or a list that is written as fast as it is read.
pub(super) type Body = Either<Full<Bytes>, Listing>;

pub(super) type Response = hyper::Response<Body>;

const JSON: &str = "application/json";

/// Returns a body in memory. No cache may keep it, and no browser may guess at its type.
pub(super) fn full(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response {
    with_body(status, media_type, Either::Left(Full::new(body.into())))
}

fn with_body(status: StatusCode, media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Returns a status without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = full(status, JSON, Bytes::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// Returns a value as JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => full(status, JSON, body),
        // Only maps whose keys are not text fail, and there are none.
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the response cannot be written as JSON"),
    }
}

/// Returns a list that is written while the client reads it.
pub(super) fn listing(listing: Listing) -> Response {
    with_body(StatusCode::OK, JSON, Either::Right(listing))
}

/// Returns the response to HEAD if GET would return a list.
pub(super) fn listing_head() -> Response {
    full(StatusCode::OK, JSON, Bytes::new())
}

/// Returns a page whose only script and style are those with the nonce, and that connects to this server alone.
pub(super) fn page(status: StatusCode, html: String, nonce: &str) -> Response {
    let mut response = full(status, "text/html; charset=utf-8", html);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Returns an error message as JSON.
pub(super) fn error(status: StatusCode, message: &str) -> Response {
    json(status, &json!({ "error": message }))
}

/// Returns 404 for an unknown path.
pub(super) fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "unknown path; /openapi.json lists all paths")
}

/// Returns 405.
pub(super) fn not_allowed() -> Response {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// Turns a response into the 401 for a request without the token.
pub(super) fn unauthorized(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Returns the error response to a query that failed.
pub(super) fn unanswered(why: QueryError) -> Response {
    let status = match why {
        QueryError::CursorExpired => StatusCode::GONE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, &why.to_string())
}

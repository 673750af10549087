//! The routes on `SERVER_ADDR`, which docs/rest.md and openapi.json document.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::advance;
use super::ask;
use super::auth::{self, TOKEN_REQUIRED};
use super::connection::Connection;
use super::info::info;
use super::query::{PageQuery, decode, topic_index};
use super::readiness::{LOOP_STUCK_TIMEOUT, Readiness};
use super::response::{self, Response};
use super::schedules::{self, Listing};
use super::status::status;
use crate::config::{Config, Secret};
use crate::handle::Handle;
use crate::kafka::Clock;
use crate::observe::activity::Activity;

/// The most lists and pages at once; a further one gets 503. Slow readers cost a bounded amount of memory and of the
/// loop's time.
const LISTS_MAX: usize = 8;

const OPENAPI: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("page.html");
/// The placeholder of the nonce in the page's scripts and styles.
const NONCE: &str = "NONCE";

/// The parameters of `/schedules`. `/parked` has the first two.
const SCHEDULES_QUERY: &[&str] = &["limit", "after", "due-before", "due-after", "topic", "key-prefix"];

/// Handles requests.
pub(super) struct Rest {
    handle: Handle,
    activity: Arc<Activity>,
    topics: Arc<[String]>,
    token: Option<Secret>,
    hostname: String,
    info: Value,
    lists: Arc<Semaphore>,
    /// The clock that `/advance` moves.
    clock: Option<Clock>,
}

impl Rest {
    /// Creates the handler for an engine.
    pub(super) fn new(config: &Config, handle: Handle, activity: Arc<Activity>, clock: Option<Clock>) -> Self {
        let hostname = hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            handle,
            activity,
            topics: config.schedules_topics().into(),
            token: config.rest_token().cloned(),
            info: info(config, &hostname),
            hostname,
            lists: Arc::new(Semaphore::new(LISTS_MAX)),
            clock,
        }
    }

    /// Returns the response to a request.
    pub(super) async fn respond(&self, request: &Request<Incoming>, connection: Arc<Connection>) -> Response {
        let path = request.uri().path();
        if let (Some(clock), &Method::POST, "/advance") = (&self.clock, request.method(), path) {
            return match self.is_authorized(request) {
                true => advance::respond(clock, request.uri().query().unwrap_or_default()),
                false => response::unauthorized(response::error(StatusCode::UNAUTHORIZED, TOKEN_REQUIRED)),
            };
        }
        if !super::is_read_only(request.method()) {
            return response::not_allowed();
        }
        match path {
            // Probes send no token, and these paths reveal no schedules.
            "/liveness" => return self.liveness(),
            "/readiness" => return self.readiness(),
            _ => {}
        }
        if !self.is_authorized(request) {
            // A browser sends no token on its first request: the page, which has no data, prompts for it.
            let body = if path == "/" { page() } else { response::error(StatusCode::UNAUTHORIZED, TOKEN_REQUIRED) };
            return response::unauthorized(body);
        }
        match path {
            "/" => page(),
            "/info" => response::json(StatusCode::OK, &self.info),
            "/status" => {
                let now = self.clock.as_ref().map_or_else(|| Clock::default().now(), Clock::now);
                let status = status(&self.handle, &self.activity, &self.topics, &self.hostname, now).await;
                response::json(StatusCode::OK, &status)
            }
            "/openapi.json" => response::full(StatusCode::OK, "application/json", OPENAPI),
            "/schedules" if request.uri().query().is_none_or(str::is_empty) => {
                self.all(request.method(), connection).await
            }
            "/schedules" => self.page(request, false).await,
            "/parked" => self.page(request, true).await,
            _ => match path.strip_prefix("/schedules/").and_then(|rest| rest.split_once('/')) {
                Some((topic, key)) => self.one(topic, key).await,
                None => response::not_found(),
            },
        }
    }

    fn is_authorized(&self, request: &Request<Incoming>) -> bool {
        auth::is_authorized(self.token.as_ref(), request.headers())
    }

    fn liveness(&self) -> Response {
        let since = self.handle.board().since_heartbeat();
        if since > LOOP_STUCK_TIMEOUT {
            let message = format!("the engine's loop has not run for {} s", since.as_secs());
            return response::error(StatusCode::SERVICE_UNAVAILABLE, &message);
        }
        response::empty(StatusCode::OK)
    }

    fn readiness(&self) -> Response {
        let readiness = Readiness::of(self.handle.board(), &self.topics);
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response::json(status, &readiness)
    }

    async fn all(&self, method: &Method, connection: Arc<Connection>) -> Response {
        if *method == Method::HEAD {
            return response::listing_head();
        }
        let Ok(permit) = Arc::clone(&self.lists).try_acquire_owned() else { return too_many() };
        match Listing::start(self.handle.clone(), Arc::clone(&self.topics), connection, permit).await {
            Ok(listing) => response::listing(listing),
            Err(error) => response::unanswered(error),
        }
    }

    async fn page(&self, request: &Request<Incoming>, parked: bool) -> Response {
        let allowed = if parked { &SCHEDULES_QUERY[..2] } else { SCHEDULES_QUERY };
        let query = request.uri().query().unwrap_or_default();
        let mut query = match PageQuery::parse(query, allowed, &self.topics) {
            Ok(query) => query,
            Err(message) => return response::error(StatusCode::BAD_REQUEST, &message),
        };
        query.filter.parked = parked;
        let Ok(_permit) = self.lists.try_acquire() else { return too_many() };
        match schedules::page(&self.handle, &self.topics, query).await {
            Ok(page) => response::full(StatusCode::OK, "application/json", page),
            Err(error) => response::unanswered(error),
        }
    }

    async fn one(&self, topic: &str, key: &str) -> Response {
        let name = decode(topic);
        let index = std::str::from_utf8(&name).ok().and_then(|name| topic_index(name, &self.topics));
        let Some(index) = index else {
            return response::error(StatusCode::NOT_FOUND, "the topic is not one of SCHEDULES_TOPICS; see /info");
        };
        match ask::find(&self.handle, index, decode(key)).await {
            Ok(found) if found.is_empty() => {
                let message = "nothing is pending for this key in the partitions that this instance holds";
                response::error(StatusCode::NOT_FOUND, message)
            }
            Ok(found) => response::full(StatusCode::OK, "application/json", schedules::list(&found, &self.topics)),
            Err(why) => response::unanswered(why),
        }
    }
}

fn too_many() -> Response {
    response::error(StatusCode::SERVICE_UNAVAILABLE, "too many lists are being read; try again later")
}

fn page() -> Response {
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return response::error(StatusCode::INTERNAL_SERVER_ERROR, "the system returned no random numbers");
    }
    let nonce = BASE64_STANDARD.encode(random);
    response::page(StatusCode::OK, PAGE.replace(NONCE, &nonce), &nonce)
}

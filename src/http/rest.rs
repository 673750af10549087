//! What is served on `SERVER_ADDR`. docs/rest.md and openapi.json say what each path answers.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::advance;
use super::answer::{self, Answer};
use super::ask;
use super::connection::Connection;
use super::query::{PageQuery, decode, topic_index};
use super::readiness::{Readiness, STUCK};
use super::schedules::{self, Listing};
use super::status::status;
use crate::config::{Config, Secret};
use crate::handle::Handle;
use crate::kafka::Clock;
use crate::observe::activity::Activity;

/// Whole lists and pages under way at once; a further one is refused, so that slow readers cost a bounded amount of
/// memory and of the loop's time.
const LISTS_MAX: usize = 8;

const OPENAPI: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("page.html");
/// Where the page's scripts and styles carry their nonce.
const NONCE: &str = "NONCE";

/// Parameters of a page of `/schedules`, and of `/parked`.
const SCHEDULES_QUERY: &[&str] = &["limit", "after", "due-before", "due-after", "topic", "key-prefix"];

/// Answers requests.
pub struct Rest {
    handle: Handle,
    activity: Arc<Activity>,
    topics: Arc<[String]>,
    token: Option<Secret>,
    hostname: String,
    info: Value,
    lists: Arc<Semaphore>,
    /// A clock that may be moved.
    clock: Option<Clock>,
}

impl Rest {
    /// For an engine.
    pub fn new(config: &Config, handle: Handle, activity: Arc<Activity>, clock: Option<Clock>) -> Self {
        let hostname = hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            handle,
            activity,
            topics: config.schedules_topics.clone().into(),
            token: config.rest_token.clone(),
            info: info(config, &hostname),
            hostname,
            lists: Arc::new(Semaphore::new(LISTS_MAX)),
            clock,
        }
    }

    /// The answer to a request.
    pub async fn answer(&self, request: &Request<Incoming>, connection: Arc<Connection>) -> Answer {
        let path = request.uri().path();
        if let (Some(clock), &Method::POST, "/advance") = (&self.clock, request.method(), path) {
            return match self.may(request) {
                true => advance::answer(clock, request.uri().query().unwrap_or_default()),
                false => answer::unauthorized(answer::error(StatusCode::UNAUTHORIZED, TOKEN_WANTED)),
            };
        }
        if !super::is_reading(request.method()) {
            return answer::not_allowed();
        }
        match path {
            // Whoever runs the process asks these, and they tell nothing of what is scheduled.
            "/liveness" => return self.liveness(),
            "/readiness" => return self.readiness(),
            _ => {}
        }
        if !self.may(request) {
            // A browser cannot be given a token beforehand: the page, which holds no data, asks for it.
            let body = if path == "/" { page() } else { answer::error(StatusCode::UNAUTHORIZED, TOKEN_WANTED) };
            return answer::unauthorized(body);
        }
        match path {
            "/" => page(),
            "/info" => answer::json(StatusCode::OK, &self.info),
            "/status" => {
                let now = self.clock.as_ref().map_or_else(|| Clock::default().now(), Clock::now);
                let status = status(&self.handle, &self.activity, &self.topics, &self.hostname, now).await;
                answer::json(StatusCode::OK, &status)
            }
            "/openapi.json" => answer::whole(StatusCode::OK, "application/json", OPENAPI),
            "/schedules" if request.uri().query().is_none_or(str::is_empty) => {
                self.all(request.method(), connection).await
            }
            "/schedules" => self.page(request, false).await,
            "/parked" => self.page(request, true).await,
            _ => match path.strip_prefix("/schedules/").and_then(|rest| rest.split_once('/')) {
                Some((topic, key)) => self.one(topic, key).await,
                None => answer::not_found(),
            },
        }
    }

    fn may(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
        shown.and_then(|shown| shown.split_at_checked(7)).is_some_and(|(scheme, shown)| {
            // The scheme's name is no secret and may be written in any case.
            scheme.eq_ignore_ascii_case(b"bearer ") && token.is(shown)
        })
    }

    fn liveness(&self) -> Answer {
        let since = self.handle.board().since_beat();
        if since > STUCK {
            let message = format!("the engine's loop has not turned for {} s", since.as_secs());
            return answer::error(StatusCode::SERVICE_UNAVAILABLE, &message);
        }
        answer::empty(StatusCode::OK)
    }

    fn readiness(&self) -> Answer {
        let readiness = Readiness::of(self.handle.board(), &self.topics);
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer::json(status, &readiness)
    }

    /// The whole list.
    async fn all(&self, method: &Method, connection: Arc<Connection>) -> Answer {
        if *method == Method::HEAD {
            return answer::listing_head();
        }
        let Ok(permit) = Arc::clone(&self.lists).try_acquire_owned() else { return too_many() };
        match Listing::start(self.handle.clone(), Arc::clone(&self.topics), connection, permit).await {
            Ok(listing) => answer::listing(listing),
            Err(why) => answer::unanswered(why),
        }
    }

    async fn page(&self, request: &Request<Incoming>, parked: bool) -> Answer {
        let allowed = if parked { &SCHEDULES_QUERY[..2] } else { SCHEDULES_QUERY };
        let query = request.uri().query().unwrap_or_default();
        let mut query = match PageQuery::parse(query, allowed, &self.topics) {
            Ok(query) => query,
            Err(message) => return answer::error(StatusCode::BAD_REQUEST, &message),
        };
        query.filter.parked = parked;
        let Ok(_permit) = self.lists.try_acquire() else { return too_many() };
        match schedules::page(&self.handle, &self.topics, query).await {
            Ok(page) => answer::whole(StatusCode::OK, "application/json", page),
            Err(why) => answer::unanswered(why),
        }
    }

    /// What is pending under one key.
    async fn one(&self, topic: &str, key: &str) -> Answer {
        let name = decode(topic);
        let index = std::str::from_utf8(&name).ok().and_then(|name| topic_index(name, &self.topics));
        let Some(index) = index else {
            return answer::error(StatusCode::NOT_FOUND, "this is none of SCHEDULES_TOPICS; see /info");
        };
        match ask::find(&self.handle, index, decode(key)).await {
            Ok(found) if found.is_empty() => {
                let message = "nothing is pending under this key in the partitions that this instance holds";
                answer::error(StatusCode::NOT_FOUND, message)
            }
            Ok(found) => answer::whole(StatusCode::OK, "application/json", schedules::list(&found, &self.topics)),
            Err(why) => answer::unanswered(why),
        }
    }
}

const TOKEN_WANTED: &str = "show the token: Authorization: Bearer <REST_TOKEN>";

fn too_many() -> Answer {
    answer::error(StatusCode::SERVICE_UNAVAILABLE, "too many lists are being read; try again")
}

fn page() -> Answer {
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return answer::error(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random numbers");
    }
    let nonce = BASE64_STANDARD.encode(random);
    answer::page(StatusCode::OK, PAGE.replace(NONCE, &nonce), &nonce)
}

fn info(config: &Config, hostname: &str) -> Value {
    let address = config.server_addr;
    // As it is usually configured.
    let server_address =
        if address.ip().is_unspecified() { format!(":{}", address.port()) } else { address.to_string() };
    json!({
        "hostname": hostname,
        "address": outward_address().into_iter().map(|ip| ip.to_string()).collect::<Vec<_>>(),
        "server_address": server_address,
        "kafka": {
            "bootstrap_servers": config.bootstrap_servers,
            "topics": config.schedules_topics,
            "history_topic": config.history_topic,
        },
    })
}

/// The address that this machine uses towards others. Connecting a UDP socket sends nothing; it only asks the routes.
fn outward_address() -> Option<IpAddr> {
    let from = |own: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(own).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Addresses for documentation (RFC 5737 and RFC 3849), which no machine has.
    from("0.0.0.0:0", "192.0.2.1:9").or_else(|| from("[::]:0", "[2001:db8::1]:9"))
}

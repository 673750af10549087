//! Metrics and REST over HTTP.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tiny_http::{Header, Method, Request, Response, Server, StatusCode};

use crate::config::Config;
use crate::core::Listed;
use crate::core::io::Cursor;
use crate::core::payload::Parts;
use crate::handle::{Handle, PAGE_MAX, Unanswered};
use crate::metrics::{Metrics, TEXT_FORMAT};

/// Requests to one address that are answered at a time.
const THREADS: usize = 4;

/// What the routes tell about.
#[derive(Clone)]
pub struct Site {
    /// The running engine.
    pub handle: Handle,
    /// Its counters.
    pub metrics: Arc<Mutex<Metrics>>,
    /// Its settings.
    pub config: Config,
}

/// An address that cannot be served.
#[derive(Debug)]
pub struct BindError {
    variable: &'static str,
    address: SocketAddr,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { variable, address, cause } = self;
        write!(f, "{variable}: cannot listen on {address}: {cause}; free the port or set another")
    }
}

impl std::error::Error for BindError {}

impl Site {
    /// Serves `/metrics` on one address and REST on the other, until the process ends.
    ///
    /// # Errors
    /// When one of the addresses cannot be bound.
    pub fn serve(&self) -> Result<(), BindError> {
        self.listen("METRICS_HTTP_ADDR", self.config.metrics_addr, Self::metrics_route)?;
        self.listen("SERVER_ADDR", self.config.server_addr, Self::rest_route)
    }

    fn listen(
        &self,
        variable: &'static str,
        address: SocketAddr,
        route: fn(&Self, Request) -> std::io::Result<()>,
    ) -> Result<(), BindError> {
        let failed = |cause| BindError { variable, address, cause };
        let server = Arc::new(Server::http(address).map_err(failed)?);
        for number in 0..THREADS {
            let (site, server) = (self.clone(), Arc::clone(&server));
            std::thread::Builder::new()
                .name(format!("http-{number}"))
                .spawn(move || {
                    while let Ok(request) = server.recv() {
                        // The client may have gone.
                        let _ = route(&site, request);
                    }
                })
                .map_err(|error| BindError { variable, address, cause: Box::new(error) })?;
        }
        Ok(())
    }

    fn metrics_route(&self, request: Request) -> std::io::Result<()> {
        if path(&request) != "/metrics" {
            return error(request, 404, "there is only /metrics here");
        }
        let text = self.metrics.lock().unwrap_or_else(PoisonError::into_inner).text();
        answer(request, 200, TEXT_FORMAT, text)
    }

    fn rest_route(&self, request: Request) -> std::io::Result<()> {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return error(request, 405, "only GET and HEAD");
        }
        match path(&request).as_str() {
            "/liveness" => match self.handle.status() {
                Ok(_) => json_answer(request, &json!({"status": "alive"})),
                Err(cause) => error(request, 503, &cause.to_string()),
            },
            "/info" => json_answer(request, &self.info()),
            "/schedules" => self.schedules(request),
            _ => error(request, 404, "there are /liveness, /info and /schedules"),
        }
    }

    fn info(&self) -> serde_json::Value {
        let config = &self.config;
        json!({
            "hostname": hostname::get().unwrap_or_default().to_string_lossy(),
            "address": [config.server_addr.ip().to_string()],
            "server_address": config.server_addr.to_string(),
            "kafka": {
                "bootstrap_servers": config.bootstrap_servers,
                "topics": config.schedules_topics,
                "history_topic": config.history_topic,
            },
        })
    }

    /// Streams the list page by page: only one page is in memory.
    fn schedules(&self, request: Request) -> std::io::Result<()> {
        let first = match self.page(Cursor::default()) {
            Ok(page) => page,
            Err(cause) => return error(request, 503, &cause.to_string()),
        };
        let body = Pages { site: self.clone(), next: first.1, buffer: format!("[{}", first.0).into_bytes(), at: 0 };
        request.respond(Response::new(StatusCode(200), vec![content_type("application/json")], body, None, None))
    }

    fn page(&self, cursor: Cursor) -> Result<(String, Option<Cursor>), Unanswered> {
        let page = self.handle.page(cursor, PAGE_MAX)?;
        let entries: Vec<String> = page.entries.iter().map(|entry| self.entry(entry).to_string()).collect();
        Ok((entries.join(","), page.next))
    }

    fn entry(&self, listed: &Listed) -> serde_json::Value {
        let parts = Parts::unpack(&listed.packed);
        let mut entry = json!({
            "id": String::from_utf8_lossy(parts.key),
            "epoch": listed.due,
            "timestamp": listed.timestamp.0.div_euclid(1000).max(0),
            "topic": self.config.schedules_topics.get(usize::from(listed.partition.topic)),
            "target-topic": &*listed.target,
            "target-key": parts.target_key.map(String::from_utf8_lossy),
            "value": STANDARD.encode(parts.value),
        });
        if std::str::from_utf8(parts.key).is_err() {
            entry["id-base64"] = STANDARD.encode(parts.key).into();
        }
        entry
    }
}

/// The rest of a listing, read as the client takes it.
struct Pages {
    site: Site,
    next: Option<Cursor>,
    buffer: Vec<u8>,
    at: usize,
}

impl Read for Pages {
    fn read(&mut self, mut into: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.buffer.len() {
            let Some(cursor) = self.next.take() else {
                if self.buffer.last() == Some(&b']') {
                    return Ok(0);
                }
                self.buffer = b"]".to_vec();
                self.at = 0;
                return self.read(into);
            };
            // An error here breaks the connection off, so that nobody takes half a list for a whole one.
            let (text, next) = self.site.page(cursor).map_err(std::io::Error::other)?;
            self.next = next;
            self.buffer = if text.is_empty() { Vec::new() } else { format!(",{text}").into_bytes() };
            self.at = 0;
            return self.read(into);
        }
        let written = into.write(&self.buffer[self.at..])?;
        self.at += written;
        Ok(written)
    }
}

fn path(request: &Request) -> String {
    request.url().split('?').next().unwrap_or_default().to_owned()
}

fn content_type(value: &str) -> Header {
    Header::from_bytes("Content-Type", value).expect("the media types of this file are legal header values")
}

fn answer(request: Request, status: u16, media: &str, body: String) -> std::io::Result<()> {
    request.respond(Response::from_string(body).with_status_code(status).with_header(content_type(media)))
}

fn json_answer(request: Request, body: &serde_json::Value) -> std::io::Result<()> {
    answer(request, 200, "application/json", body.to_string())
}

fn error(request: Request, status: u16, message: &str) -> std::io::Result<()> {
    answer(request, status, "application/json", json!({"error": message}).to_string())
}

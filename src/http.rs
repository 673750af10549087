//! The HTTP servers: metrics on one address, REST on the other.

mod schedules;

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, ResponseBox, Server, StatusCode};
use tracing::{debug, warn};

use crate::config::Config;
use crate::handle::{Handle, Unanswered};
use crate::metrics::{self, Metrics};
use schedules::Listing;

/// Threads that answer requests, for each server.
const THREADS: usize = 4;

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    variable: &'static str,
    address: SocketAddr,
    error: std::io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: cannot listen on {}: {}", self.variable, self.address, self.error)
    }
}

impl std::error::Error for BindError {}

/// Both addresses, taken before anything else is started, so that a taken one ends the program at once.
#[derive(Debug)]
pub struct Listeners {
    rest: TcpListener,
    metrics: TcpListener,
}

impl Listeners {
    /// Listens on the configured addresses; nothing is answered yet.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let bind = |variable, address: SocketAddr| {
            TcpListener::bind(address).map_err(|error| BindError { variable, address, error })
        };
        Ok(Self {
            rest: bind("SERVER_ADDR", config.server_addr)?,
            metrics: bind("METRICS_HTTP_ADDR (or METRICS_ADDR)", config.metrics_addr)?,
        })
    }

    /// Where REST and metrics are served: the actual ports where 0 was asked for.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.rest.local_addr()?, self.metrics.local_addr()?))
    }

    /// Answers requests on threads of its own, until the program ends.
    ///
    /// # Errors
    /// When the servers cannot be started.
    pub fn serve(self, config: &Config, handle: Handle, metrics: Metrics) -> std::io::Result<()> {
        let rest = Rest { handle, topics: config.schedules_topics.clone().into(), info: info(config) };
        let rest = Arc::new(rest);
        start(self.rest, "rest", move |request| rest.answer(request))?;
        start(self.metrics, "metrics", move |request| match path(request) {
            "/metrics" => with_type(Response::from_data(metrics.text()), metrics::TEXT_FORMAT).boxed(),
            _ => not_found(),
        })
    }
}

fn start(
    listener: TcpListener,
    name: &str,
    answer: impl Fn(&Request) -> ResponseBox + Clone + Send + 'static,
) -> std::io::Result<()> {
    let server = Arc::new(Server::from_listener(listener, None).map_err(std::io::Error::other)?);
    for number in 0..THREADS {
        let (server, answer) = (server.clone(), answer.clone());
        thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
            while let Ok(request) = server.recv() {
                respond(request, &answer);
            }
            warn!("the HTTP server has ended");
        })?;
    }
    Ok(())
}

fn respond(request: Request, answer: &impl Fn(&Request) -> ResponseBox) {
    let response = match request.method() {
        Method::Get | Method::Head => answer(&request),
        _ => error(405, "only GET and HEAD are allowed").with_header(header("Allow", "GET, HEAD")),
    };
    if let Err(e) = request.respond(response) {
        debug!("a client went away before its answer: {e}");
    }
}

struct Rest {
    handle: Handle,
    topics: Arc<[String]>,
    info: Value,
}

impl Rest {
    fn answer(&self, request: &Request) -> ResponseBox {
        match path(request) {
            "/liveness" => match self.handle.status() {
                Ok(_) => Response::empty(200).boxed(),
                Err(e) => unanswered(e),
            },
            "/info" => json_response(200, &self.info),
            "/schedules" if *request.method() == Method::Head => {
                with_type(Response::empty(200), "application/json").boxed()
            }
            "/schedules" => match Listing::start(self.handle.clone(), self.topics.clone()) {
                Ok(listing) => json_stream(listing),
                Err(e) => unanswered(e),
            },
            _ => not_found(),
        }
    }
}

fn info(config: &Config) -> Value {
    let address = config.server_addr;
    // As it is usually configured.
    let server_address =
        if address.ip().is_unspecified() { format!(":{}", address.port()) } else { address.to_string() };
    json!({
        "hostname": hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
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
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address for documentation (RFC 5737), which no machine has.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn path(request: &Request) -> &str {
    request.url().split('?').next().unwrap_or_default()
}

fn json_stream(body: impl Read + Send + 'static) -> ResponseBox {
    let response = Response::new(StatusCode(200), vec![header("Content-Type", "application/json")], body, None, None);
    response.with_chunked_threshold(0).boxed()
}

fn json_response(status: u16, body: &Value) -> ResponseBox {
    with_type(Response::from_data(body.to_string()).with_status_code(status), "application/json").boxed()
}

fn error(status: u16, message: &str) -> ResponseBox {
    json_response(status, &json!({ "error": message }))
}

fn not_found() -> ResponseBox {
    error(404, "there is nothing at this path")
}

fn unanswered(why: Unanswered) -> ResponseBox {
    error(503, &why.to_string())
}

fn with_type<R: Read>(response: Response<R>, media_type: &str) -> Response<R> {
    response.with_header(header("Content-Type", media_type))
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("the names and values of our headers are ASCII")
}

//! The HTTP servers: metrics on one address and REST on the other, both on one thread.
//!
//! hyper runs on a current-thread runtime, apart from the engine's loop. It has limits on headers, timeouts, and bodies
//! that are written as fast as the client reads; `server` adds the bounds on connections.

mod advance;
mod ask;
mod auth;
mod connection;
mod hyper_errors;
mod info;
mod query;
mod readiness;
mod response;
mod rest;
mod schedules;
mod server;
mod status;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;
use crate::handle::Handle;
use crate::kafka::Clock;
use crate::metrics::{self, Metrics};
use crate::observe::activity::Activity;
use response::Response;
use rest::Rest;
use server::Server;

/// A further connection replaces the one that has made no progress for the longest time.
const REST_CONNECTIONS_MAX: usize = 256;
/// Few programs read metrics.
const METRICS_CONNECTIONS_MAX: usize = 32;

/// Connections that the system queues until the server accepts them.
const BACKLOG_MAX: i32 = 1_024;

/// Why the program cannot listen on an address.
#[derive(Debug)]
pub struct BindError {
    variable: &'static str,
    address: SocketAddr,
    error: std::io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: cannot listen on {}", self.variable, self.address)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The listeners of both addresses. They are bound before anything else starts, so an address in use ends the program
/// at once.
#[derive(Debug)]
pub struct Listeners {
    rest: TcpListener,
    metrics: TcpListener,
}

impl Listeners {
    /// Listens on the configured addresses. Requests wait until [`Listeners::serve`].
    ///
    /// # Errors
    /// If one of the addresses is in use or not the machine's.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let bind =
            |variable, address: SocketAddr| listen(address).map_err(|error| BindError { variable, address, error });
        Ok(Self {
            rest: bind("SERVER_ADDR", config.server_addr())?,
            metrics: bind("METRICS_HTTP_ADDR (or METRICS_ADDR)", config.metrics_addr())?,
        })
    }

    /// Returns the addresses of REST and metrics: with the actual port if 0 is configured.
    ///
    /// # Errors
    /// If the system does not return them.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.rest.local_addr()?, self.metrics.local_addr()?))
    }

    /// Serves requests on a thread of its own, until the program ends.
    ///
    /// # Errors
    /// If the servers cannot be started.
    pub fn serve(
        self,
        config: &Config,
        handle: Handle,
        metrics: Metrics,
        activity: Arc<Activity>,
        clock: Option<Clock>,
    ) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = |listener: TcpListener| {
            listener.set_nonblocking(true)?;
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)
        };
        let (rest_listener, metrics_listener) = (listener(self.rest)?, listener(self.metrics)?);
        let rest = Arc::new(Rest::new(config, handle.clone(), activity, clock));
        let rest_server = Server::new("rest", REST_CONNECTIONS_MAX, &metrics);
        let metrics_server = Server::new("metrics", METRICS_CONNECTIONS_MAX, &metrics);
        let topics: Arc<[String]> = config.schedules_topics().into();
        let serve = async move {
            let rest = rest_server.run(rest_listener, move |request, connection| {
                let rest = Arc::clone(&rest);
                async move { rest.respond(&request, connection).await }
            });
            let metrics = metrics_server.run(metrics_listener, move |request, _| {
                let response = scrape(&request, &metrics, &handle, &topics);
                async move { response }
            });
            tokio::join!(rest, metrics);
        };
        thread::Builder::new().name("http".into()).spawn(move || runtime.block_on(serve))?;
        Ok(())
    }
}

/// Listens on an address; the unspecified IPv6 address includes IPv4, whatever the system's default is.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    if address.is_ipv4() || !address.ip().is_unspecified() {
        return TcpListener::bind(address);
    }
    match listen_on_both(address) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            tracing::info!("this machine has no IPv6; port {} listens on IPv4 only", address.port());
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        listener => listener,
    }
}

fn listen_on_both(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    // As in the standard library: connections of an earlier process do not block the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG_MAX)?;
    Ok(socket.into())
}

fn scrape(request: &Request<Incoming>, metrics: &Metrics, handle: &Handle, topics: &[String]) -> Response {
    if !is_read_only(request.method()) {
        return response::not_allowed();
    }
    match request.uri().path() {
        "/metrics" => response::full(StatusCode::OK, metrics::TEXT_FORMAT, metrics.text(handle.board(), topics)),
        _ => response::error(StatusCode::NOT_FOUND, "unknown path; metrics are at /metrics"),
    }
}

/// REST has no method that changes anything, except `/advance` of `mini`.
fn is_read_only(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

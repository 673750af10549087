//! The HTTP servers: metrics on one address, REST on the other, both on one thread.
//!
//! hyper serves them on a current-thread runtime, apart from the engine's loop. It brings limits on headers, timeouts
//! and bodies that are written as fast as they are read; `server` adds the bounds on connections.

mod advance;
mod answer;
mod ask;
mod connection;
mod query;
mod readiness;
mod refusal;
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
use answer::Answer;
use rest::Rest;
use server::Server;

/// Connections to REST; a further one takes the place of the one that has been still the longest.
const REST_CONNECTIONS_MAX: usize = 256;
/// The same for metrics, which few programs read.
const METRICS_CONNECTIONS_MAX: usize = 32;

/// Connections that the system accepts for a server before the server takes them.
const BACKLOG: i32 = 1_024;

/// An address that cannot be listened on.
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
        let bind =
            |variable, address: SocketAddr| listen(address).map_err(|error| BindError { variable, address, error });
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

    /// Answers requests on a thread of its own, until the program ends.
    ///
    /// # Errors
    /// When the servers cannot be started.
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
        let topics: Arc<[String]> = config.schedules_topics.clone().into();
        let serve = async move {
            let rest = rest_server.run(rest_listener, move |request, connection| {
                let rest = Arc::clone(&rest);
                async move { rest.answer(&request, connection).await }
            });
            let metrics = metrics_server.run(metrics_listener, move |request, _| {
                let answer = scrape(&request, &metrics, &handle, &topics);
                async move { answer }
            });
            tokio::join!(rest, metrics);
        };
        thread::Builder::new().name("http".into()).spawn(move || runtime.block_on(serve))?;
        Ok(())
    }
}

/// Every address means those of IPv4 too, whatever the system's default for IPv6 sockets is.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    if address.is_ipv4() || !address.ip().is_unspecified() {
        return TcpListener::bind(address);
    }
    match listen_on_both(address) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            tracing::info!("this machine has no IPv6; port {} listens on IPv4 alone", address.port());
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        listener => listener,
    }
}

fn listen_on_both(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    // As the standard library does it: connections of the process before this one do not hold the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn scrape(request: &Request<Incoming>, metrics: &Metrics, handle: &Handle, topics: &[String]) -> Answer {
    if !is_reading(request.method()) {
        return answer::not_allowed();
    }
    match request.uri().path() {
        "/metrics" => answer::whole(StatusCode::OK, metrics::TEXT_FORMAT, metrics.text(handle.board(), topics)),
        _ => answer::error(StatusCode::NOT_FOUND, "there is nothing at this path; metrics are at /metrics"),
    }
}

/// Nothing can be changed over HTTP.
fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

//! Accepts connections and serves their requests, within bounds that hold whatever clients do.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::{IntCounter, IntGauge};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, error, info, warn};

use super::connection::{Connection, MonitoredStream, Overdue, ResponseBody};
use super::response::Response;
use crate::metrics::Metrics;

/// The limit of a request's line and headers, and of the part of a response that is written at once.
const BUFFER_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// How long to wait before accepting again if the system fails to.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// One server may use this fraction of the process's file descriptors: a quarter.
const DESCRIPTORS_SHARE: usize = 4;

/// A server's name and bounds.
#[derive(Clone)]
pub(super) struct Server {
    name: &'static str,
    connections_max: usize,
    open: Arc<Mutex<Open>>,
    metrics: Metrics,
    gauge: IntGauge,
    evicted: IntCounter,
    stalled: IntCounter,
}

#[derive(Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, Arc<Connection>>,
}

impl Server {
    /// Creates a server with at most so many connections, or fewer if the process may open few files.
    pub(super) fn new(name: &'static str, connections_max: usize, metrics: &Metrics) -> Self {
        let fair = descriptors_max().map_or(usize::MAX, |max| (max / DESCRIPTORS_SHARE).max(4));
        Self {
            name,
            connections_max: connections_max.min(fair),
            open: Arc::default(),
            metrics: metrics.clone(),
            gauge: metrics.connections(name),
            evicted: metrics.cut(name, "evicted"),
            stalled: metrics.cut(name, "stalled"),
        }
    }

    /// Accepts connections for ever. An error of a connection ends that connection only.
    pub(super) async fn run<R, F>(self, listener: TcpListener, respond: R)
    where
        R: Fn(Request<Incoming>, Arc<Connection>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let mut failing = false;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if std::mem::take(&mut failing) {
                        info!(server = self.name, "connections are accepted again");
                    }
                    self.admit(stream, respond.clone());
                }
                // The client has already closed it.
                Err(error) if is_client_error(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(server = self.name, %error, "connections cannot be accepted; retrying");
                    }
                    self.evict();
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Serves a connection. If there are too many, it replaces the one that has made no progress for the longest time.
    fn admit<R, F>(&self, stream: TcpStream, respond: R)
    where
        R: Fn(Request<Incoming>, Arc<Connection>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let connection = Arc::<Connection>::default();
        if self.open.lock().unwrap_or_else(PoisonError::into_inner).all.len() >= self.connections_max {
            self.evict();
        }
        let number = self.add(Arc::clone(&connection));
        let server = self.clone();
        tokio::spawn(async move {
            let serving = tokio::spawn(server.clone().serve(stream, Arc::clone(&connection), respond));
            if let Err(panic) = serving.await {
                error!(server = server.name, %panic, "a request handler panicked; please report this");
            }
            server.remove(number);
        });
    }

    async fn serve<R, F>(self, stream: TcpStream, connection: Arc<Connection>, respond: R)
    where
        R: Fn(Request<Incoming>, Arc<Connection>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        // Responses are written at once, or as fast as the client reads.
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(MonitoredStream::new(stream, Arc::clone(&connection)));
        let service = service_fn(|request| {
            connection.responding();
            let responding = respond(request, Arc::clone(&connection));
            let (metrics, name, connection) = (self.metrics.clone(), self.name, Arc::clone(&connection));
            async move {
                let response = responding.await;
                metrics.request(name, response.status().as_u16());
                Ok::<_, std::convert::Infallible>(response.map(|body| ResponseBody::new(body, connection)))
            }
        });
        let serving = http1::Builder::new()
            // hyper's timeout would apply to idle connections too; `Connection` has one for each phase.
            .header_read_timeout(None)
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(io, service);
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                debug!(server = self.name, %error, "a connection ended early");
            },
            () = connection.aborted() => {}
            why = connection.overdue() => if why == Overdue::Stalled {
                self.stalled.inc();
            },
        }
    }

    fn add(&self, connection: Arc<Connection>) -> u64 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.next += 1;
        let number = open.next;
        open.all.insert(number, connection);
        self.gauge.set(open.all.len() as i64);
        number
    }

    fn remove(&self, number: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all.remove(&number);
        self.gauge.set(open.all.len() as i64);
    }

    fn evict(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let slowest =
            open.all.iter().min_by_key(|(_, connection)| connection.last_progress()).map(|(number, _)| *number);
        if let Some(connection) = slowest.and_then(|number| open.all.remove(&number)) {
            connection.abort();
            self.evicted.inc();
            self.gauge.set(open.all.len() as i64);
        }
    }
}

fn is_client_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Returns the process's limit on open files, if `/proc` has it.
fn descriptors_max() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

//! Accepts connections and answers their requests, within bounds that no client can move.

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

use super::answer::Answer;
use super::connection::{Answered, Connection, Overdue, Watched};
use crate::metrics::Metrics;

/// Bytes of a request's line and headers, and of an answer that is written at once.
const BUFFER_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Pause after the system could not give a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The part of the process' file descriptors that one server may use.
const DESCRIPTORS_SHARE: usize = 4;

/// A server's name and bounds.
#[derive(Clone)]
pub struct Server {
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
    /// A server with at most so many connections: fewer where the process may not open many files.
    pub fn new(name: &'static str, connections_max: usize, metrics: &Metrics) -> Self {
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

    /// Accepts for ever. What goes wrong with a connection ends that connection only.
    pub async fn run<A, F>(self, listener: TcpListener, answer: A)
    where
        A: Fn(Request<Incoming>, Arc<Connection>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut refused = false;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if std::mem::take(&mut refused) {
                        info!(server = self.name, "connections are accepted again");
                    }
                    self.admit(stream, answer.clone());
                }
                // That one client has gone already.
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut refused, true) {
                        warn!(server = self.name, %error, "no connection can be accepted; trying again until one can");
                    }
                    self.evict();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection. If there are too many, the one that has been still the longest makes room.
    fn admit<A, F>(&self, stream: TcpStream, answer: A)
    where
        A: Fn(Request<Incoming>, Arc<Connection>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let connection = Arc::<Connection>::default();
        if self.open.lock().unwrap_or_else(PoisonError::into_inner).all.len() >= self.connections_max {
            self.evict();
        }
        let number = self.add(Arc::clone(&connection));
        let server = self.clone();
        tokio::spawn(async move {
            let serving = tokio::spawn(server.clone().serve(stream, Arc::clone(&connection), answer));
            if let Err(panic) = serving.await {
                error!(server = server.name, %panic, "a request's answer failed; please report this");
            }
            server.remove(number);
        });
    }

    async fn serve<A, F>(self, stream: TcpStream, connection: Arc<Connection>, answer: A)
    where
        A: Fn(Request<Incoming>, Arc<Connection>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        // Answers are written in one piece, or as fast as they are read.
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&connection)));
        let service = service_fn(|request| {
            connection.answering();
            let answered = answer(request, Arc::clone(&connection));
            let (metrics, name, connection) = (self.metrics.clone(), self.name, Arc::clone(&connection));
            async move {
                let answer = answered.await;
                metrics.request(name, answer.status().as_u16());
                Ok::<_, std::convert::Infallible>(answer.map(|body| Answered::new(body, connection)))
            }
        });
        let serving = http1::Builder::new()
            // It would count idle connections too: the connection itself knows how long it may wait for what.
            .header_read_timeout(None)
            .max_buf_size(BUFFER_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(io, service);
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                debug!(server = self.name, %error, "a connection ended early");
            },
            () = connection.was_cut() => {}
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
        let stillest = open.all.iter().min_by_key(|(_, connection)| connection.progress()).map(|(number, _)| *number);
        if let Some(connection) = stillest.and_then(|number| open.all.remove(&number)) {
            connection.cut();
            self.evicted.inc();
            self.gauge.set(open.all.len() as i64);
        }
    }
}

fn is_the_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// How many files the process may have open, where the system says so as Linux does.
fn descriptors_max() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

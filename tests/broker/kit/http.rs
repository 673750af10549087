//! A minimal HTTP client that is strict about the end of a body.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(15);

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Header names are in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a body in UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Returns status and body, if there is a response.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let answer = ask(port, "GET", path, &[]).ok()?;
    Some((answer.status, String::from_utf8(answer.body).ok()?))
}

/// Sends a request and reads the whole response.
pub fn ask(port: u16, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
    let mut stream = connect(port)?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Connection: close\r\n\r\n");
    // Written in one piece, because a server that rejects the beginning may close before the rest.
    stream.write_all(request.as_bytes())?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw)?;
    parse(&raw, method == "HEAD")
}

/// Connects with a read timeout.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Parses a response whose connection was closed. An incomplete one is an error.
pub fn parse(raw: &[u8], head: bool) -> io::Result<Answer> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::UnexpectedEof, what.to_owned());
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(|| broken("no headers"))?;
    let text = std::str::from_utf8(&raw[..end]).map_err(io::Error::other)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|s| s.parse().ok());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &raw[end + 4..];
    let body = if head {
        rest.to_vec()
    } else if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        unchunk(rest).ok_or_else(|| broken("the last chunk is missing"))?
    } else if let Some(length) = headers.get("content-length").and_then(|length| length.parse::<usize>().ok()) {
        rest.get(..length).ok_or_else(|| broken("the body is cut"))?.to_vec()
    } else {
        rest.to_vec()
    };
    Ok(Answer { status: status.ok_or_else(|| broken("no status"))?, headers, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// Sends a POST without a body; returns status and body.
pub fn post(port: u16, path: &str) -> Option<(u16, String)> {
    let answer = ask(port, "POST", path, &[]).ok()?;
    Some((answer.status, String::from_utf8(answer.body).ok()?))
}

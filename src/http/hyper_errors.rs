//! Adds a JSON body to the errors that hyper sends by itself, which have none.

use serde_json::json;

/// hyper's longest error is far shorter.
const ERROR_BYTES_MAX: usize = 256;

/// Returns hyper's error with a body, or `None` if these bytes are something else: all our own responses have headers
/// that hyper does not set, and the chunks of a list have no line ends.
pub(super) fn with_body(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes.get(..bytes.len().min(ERROR_BYTES_MAX + 1))?).ok()?;
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let status = lines.next().filter(|line| line.starts_with("HTTP/1."))?;
    let code: u16 = status.split(' ').nth(1)?.parse().ok().filter(|code| (400..500).contains(code))?;
    let mut empty = false;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => empty = value.trim() == "0",
            "connection" | "date" => {}
            _ => return None,
        }
    }
    if !empty {
        return None;
    }
    let message = match code {
        431 => "the request line and headers are too long: the limits are 16 KiB and 64 headers",
        414 => "the request's path is too long",
        _ => "this is not an HTTP request",
    };
    let body = json!({ "error": message }).to_string();
    let length = body.len();
    let response = format!(
        "{status}\r\nconnection: close\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    Some(response.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hypers_errors_get_a_body() {
        let bare = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let response = String::from_utf8(with_body(bare).expect("an error of hyper's")).expect("text");
        assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"), "{response}");
        assert!(
            response.ends_with("content-length: 39\r\n\r\n{\"error\":\"this is not an HTTP request\"}"),
            "{response}"
        );
    }

    #[test]
    fn nothing_else_is_touched() {
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nx-content-type-options: nosniff\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n{}",
            "HTTP/1.1 400 x\",\"value\":\"\"}]\r\n0\r\n\r\n",
            "",
        ] {
            assert_eq!(with_body(other.as_bytes()), None, "{other:?}");
        }
        let long = format!("HTTP/1.1 400 {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(ERROR_BYTES_MAX));
        assert_eq!(with_body(long.as_bytes()), None);
    }
}

//! `/info`: the instance's host, addresses and topics.

use std::net::{IpAddr, UdpSocket};

use serde_json::{Value, json};

use crate::config::Config;

/// Returns the response's JSON.
pub(super) fn info(config: &Config, hostname: &str) -> Value {
    let address = config.server_addr();
    // The usual way to configure it.
    let server_address =
        if address.ip().is_unspecified() { format!(":{}", address.port()) } else { address.to_string() };
    json!({
        "hostname": hostname,
        "address": outward_address().into_iter().map(|ip| ip.to_string()).collect::<Vec<_>>(),
        "server_address": server_address,
        "kafka": {
            "bootstrap_servers": config.bootstrap_servers(),
            "topics": config.schedules_topics(),
            "history_topic": config.history_topic(),
        },
    })
}

/// Returns the address that this machine uses towards others. Connecting a UDP socket sends nothing; it only looks up a
/// route.
fn outward_address() -> Option<IpAddr> {
    let from = |own: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(own).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Reserved for documentation (RFC 5737 and RFC 3849), so no machine has them.
    from("0.0.0.0:0", "192.0.2.1:9").or_else(|| from("[::]:0", "[2001:db8::1]:9"))
}

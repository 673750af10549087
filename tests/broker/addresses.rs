//! IPv4 and IPv6: the addresses that servers listen on, and the brokers that clients reach.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

use crate::kit::Case;
use crate::kit::case::TIMEOUT;
use crate::kit::engine::Engine;
use crate::kit::http;
use crate::kit::process::{free_port, skipped};
use crate::kit::wait::eventually;

/// Returns whether this machine has IPv6; prints a message if not.
fn has_ipv6() -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        skipped("this machine has no IPv6");
    }
    has
}

fn status(host: IpAddr, port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect((host, port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).ok()?;
    Some(http::parse(&raw, false).ok()?.status)
}

#[test]
fn without_a_host_servers_listen_on_ipv4_and_ipv6() {
    if !has_ipv6() {
        return;
    }
    let (rest, metrics) = (free_port(), free_port());
    let nowhere = format!("127.0.0.1:{}", free_port());
    let env = [
        ("BOOTSTRAP_SERVERS", nowhere),
        ("SERVER_ADDR", format!(":{rest}")),
        ("METRICS_HTTP_ADDR", format!(":{metrics}")),
    ];
    let _engine = Engine::start("both-families", &[], &env.map(|(name, value)| (name.to_owned(), value)));
    for host in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        for (port, path) in [(rest, "/info"), (metrics, "/metrics")] {
            let found = eventually(&format!("{path} on {host}"), TIMEOUT, || status(host, port, path));
            assert_eq!(found, 200, "{path} on {host}");
        }
    }
}

#[test]
fn brokers_that_have_only_ipv6_addresses_are_reached() {
    let Some(case) = Case::new("ipv6", 1) else { return };
    if !has_ipv6() {
        return;
    }
    let Some(six) = &case.broker.six else { return skipped("the broker of KAFKA_BOOTSTRAP may have no IPv6") };
    let mut engine = case.engine_with(&[("BOOTSTRAP_SERVERS", six)]);
    engine.ready();
    case.produce(&[case.due_in("k", "v", 0)]);
    assert_eq!(case.fired(1).len(), 1);
    engine.stop();
}

#[test]
fn a_configured_address_family_is_used() {
    let Some(case) = Case::new("family", 1) else { return };
    if !has_ipv6() {
        return;
    }
    let Some(six) = &case.broker.six else { return skipped("the broker of KAFKA_BOOTSTRAP may have no IPv6") };
    let file =
        crate::kit::process::configuration("family", "kafka.common.configuration:\n  broker.address.family: v4\n");
    let engine = case.engine_with(&[("BOOTSTRAP_SERVERS", six), ("CONFIGURATION_FILE", &file)]);
    eventually("the log says that no broker answers", TIMEOUT, || {
        engine.output().contains("no broker of BOOTSTRAP_SERVERS answers").then_some(())
    });
}

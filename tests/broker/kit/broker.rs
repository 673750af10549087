//! A real Kafka broker: fetched once, one for all tests of a run, gone with them.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::process::{free_port, outliving_shell, skipped, target_dir};

const VERSION: &str = "4.3.1";
const LOG4J: &str = "2.25.1";

/// How long a broker may take to answer.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Runs java beside a `read` that ends with the tests, then removes both java and what it wrote, but for the log of one
/// that has died by itself.
const GUARD: &str = r#"
data=$1; log=$2; shift 2
java "$@" </dev/null >"$log" 2>&1 &
java=$!
read _
exec 2>/dev/null
kill -9 $java && rm -f "$log"
wait $java
rm -rf "$data"
"#;

/// A broker that answers.
#[derive(Debug)]
pub struct Broker {
    /// Its address.
    pub bootstrap: String,
    /// The shortest session timeout that it takes, with a margin for two busy cores.
    pub session_timeout_ms: u32,
    /// Replicas that its topics have.
    pub replicas: i32,
    /// Its address with a host of IPv6, where the machine has that. Who comes by it finds brokers there alone.
    pub six: Option<String>,
    /// The port by which it is reached through a [`Proxy`](super::proxy::Proxy), and the one behind that.
    pub proxied: Option<(u16, u16)>,
    /// Where Kafka's own tools lie; none beside a broker that was there already.
    home: Option<PathBuf>,
    /// Keeps the pipe open.
    _guard: Option<Child>,
}

impl Broker {
    /// Several brokers as one.
    pub fn of_cluster(bootstrap: String, replicas: i32, home: PathBuf) -> Self {
        Self {
            bootstrap,
            session_timeout_ms: 6_000,
            replicas,
            six: None,
            proxied: None,
            home: Some(home),
            _guard: None,
        }
    }

    /// Runs one of Kafka's own tools against it. `None`, after saying so, where they are not at hand.
    pub fn tool(&self, class: &str, args: &[&str]) -> Option<String> {
        let Some(home) = &self.home else {
            skipped(&format!("what needs Kafka's {class}, which is not at hand beside a broker of KAFKA_BOOTSTRAP"));
            return None;
        };
        let classes = text(&home.join("libs").join("*"));
        let output = Command::new("java")
            // What lives for a second is not worth compiling well.
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &classes, class])
            .args(["--bootstrap-server", &self.bootstrap])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("java runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{class} {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        Some(said)
    }
}

/// What the tests' broker has beside what one node needs: it forgives nothing that a test would have to wait for.
const TUNED: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.threads=1
log.cleaner.backoff.ms=200
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
num.network.threads=2
num.io.threads=4
";

/// A second broker, with Kafka's default settings; `None`, after saying so, where there can be none. It is started when a
/// test first asks for it: tuned settings have hidden faults before.
pub fn default_broker() -> Option<&'static Broker> {
    static BROKER: OnceLock<Result<Option<Broker>, String>> = OnceLock::new();
    let found = BROKER.get_or_init(|| {
        let Some(home) = home()? else { return Ok(None) };
        start(&home, "").or_else(|_| start(&home, "")).map(Some)
    });
    found.as_ref().expect("a Kafka broker").as_ref()
}

/// A broker of the test's own: Kafka's default settings, and these lines. `None`, after saying so, where there can be none.
pub fn broker_with(more: &str) -> Option<&'static Broker> {
    let home = home().expect("Kafka")?;
    let broker = start(&home, more).or_else(|_| start(&home, more)).expect("a Kafka broker");
    Some(Box::leak(Box::new(broker)))
}

/// The broker of this run; `None`, after saying so, where there can be none.
pub fn broker() -> Option<&'static Broker> {
    static BROKER: OnceLock<Result<Option<Broker>, String>> = OnceLock::new();
    BROKER.get_or_init(find).as_ref().expect("a Kafka broker").as_ref()
}

fn find() -> Result<Option<Broker>, String> {
    if let Ok(bootstrap) = std::env::var("KAFKA_BOOTSTRAP") {
        answers(&bootstrap, START_LIMIT, || None)?;
        return Ok(Some(Broker {
            bootstrap,
            session_timeout_ms: 6_000,
            replicas: 1,
            six: None,
            proxied: None,
            home: None,
            _guard: None,
        }));
    }
    let Some(home) = home()? else { return Ok(None) };
    // Another program may take a port between choosing and using it.
    start(&home, TUNED).or_else(|_| start(&home, TUNED)).map(Some)
}

/// Kafka's own programs; `None`, after saying so, where they cannot be had. Found once: tests that ask at the same time
/// must not fetch into one directory.
pub fn home() -> Result<Option<PathBuf>, String> {
    static HOME: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
    HOME.get_or_init(find_home).clone()
}

fn find_home() -> Result<Option<PathBuf>, String> {
    if let Some(missing) = ["java", "mvn"].into_iter().find(|tool| !runs(tool)) {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        let said = format!("no {missing} and no KAFKA_BOOTSTRAP: the tests against a real Kafka broker cannot run");
        if ci {
            return Err(format!("{said}, and CI=true does not let them be skipped"));
        }
        skipped(&said);
        return Ok(None);
    }
    fetch().map(Some)
}

fn runs(tool: &str) -> bool {
    Command::new(tool).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// The directory with Kafka's `libs`, fetched where it is not there yet.
fn fetch() -> Result<PathBuf, String> {
    let home = target_dir().join(format!("kafka-{VERSION}"));
    if home.join("libs").is_dir() {
        return Ok(home);
    }
    let _ = writeln!(std::io::stderr(), "fetching Apache Kafka {VERSION} with Maven into {}", home.display());
    let part = home.with_extension(format!("part-{}", std::process::id()));
    fs::create_dir_all(&part).map_err(|e| format!("{}: {e}", part.display()))?;
    let dependency = |(group, artifact, version): (&str, &str, &str)| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    let dependencies: String = [
        ("org.apache.kafka", "kafka_2.13", VERSION),
        ("org.apache.kafka", "kafka-tools", VERSION),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
        ("org.apache.logging.log4j", "log4j-core", LOG4J),
    ]
    .into_iter()
    .map(dependency)
    .collect();
    write(
        &part.join("pom.xml"),
        &format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
             <groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\
             <dependencies>{dependencies}</dependencies></project>"
        ),
    )?;
    let maven = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs"])
        .current_dir(&part)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("mvn: {e}"))?;
    if !maven.status.success() {
        let _ = fs::remove_dir_all(&part);
        return Err(format!(
            "mvn could not fetch Kafka: {}\n{}{}",
            maven.status,
            String::from_utf8_lossy(&maven.stdout),
            String::from_utf8_lossy(&maven.stderr)
        ));
    }
    // Another run may have been first: then its copy is as good.
    if let Err(e) = fs::rename(&part, &home) {
        let _ = fs::remove_dir_all(&part);
        if !home.join("libs").is_dir() {
            return Err(format!("{}: {e}", home.display()));
        }
    }
    Ok(home)
}

/// One node, with `more` lines in its settings.
fn start(home: &Path, more: &str) -> Result<Broker, String> {
    let (port, controller, proxy, behind) = (free_port(), free_port(), free_port(), free_port());
    let data = target_dir().join("tmp").join(format!("kafka-{}-{port}", std::process::id()));
    fs::create_dir_all(&data).map_err(|e| format!("{}: {e}", data.display()))?;
    let bootstrap = format!("127.0.0.1:{port}");
    let properties = data.join("server.properties");
    let six = TcpListener::bind("[::1]:0").is_ok().then(|| format!("[::1]:{}", free_port()));
    let on_six = six.as_ref().map(|six| format!(",SIX://{six}")).unwrap_or_default();
    write(
        &properties,
        &format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{bootstrap},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}{on_six}
advertised.listeners=PLAINTEXT://{bootstrap},PROXIED://127.0.0.1:{proxy}{on_six}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,SIX:PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
{more}",
            data.join("log").display()
        ),
    )?;
    let java = format(home, &data, &[]).inspect_err(|_| drop(fs::remove_dir_all(&data)))?;
    let guard = run(&data, java, &bootstrap)?;
    Ok(Broker {
        bootstrap,
        // Kafka's default for the shortest one is 6 s.
        session_timeout_ms: if more.contains("group.min.session.timeout.ms") { 3_000 } else { 6_000 },
        replicas: 1,
        six,
        proxied: Some((proxy, behind)),
        home: Some(home.to_owned()),
        _guard: Some(guard),
    })
}

/// Runs java until the tests end or the pipe to what is returned is closed; waits until the broker in it answers.
pub fn run(data: &Path, java: Vec<String>, bootstrap: &str) -> Result<Child, String> {
    let log = data.with_extension("log");
    let mut args = vec![text(data), text(&log), "-Xmx1g".to_owned()];
    args.extend(java);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut guard = outliving_shell(GUARD, &args);
    let died = || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        (said.contains(" FATAL ") || said.contains("Fatal error")).then_some(said)
    };
    if let Err(e) = answers(bootstrap, START_LIMIT, died) {
        drop(guard.stdin.take());
        let _ = guard.wait();
        return Err(format!("{e}; see {}", log.display()));
    }
    Ok(guard)
}

/// Formats a node's storage for the `server.properties` in its directory, with more arguments for that. Gives java's
/// arguments that run it.
pub fn format(home: &Path, data: &Path, more: &[String]) -> Result<Vec<String>, String> {
    let logging = data.join("log4j2.properties");
    write(
        &logging,
        "status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %-5p %c{1} %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
",
    )?;
    let classes = text(&home.join("libs").join("*"));
    let logging = format!("-Dlog4j2.configurationFile={}", logging.display());
    let properties = text(&data.join("server.properties"));
    let format = Command::new("java")
        .args(["-Xmx256m", &logging, "-cp", &classes, "kafka.tools.StorageTool"])
        .args(["format", "-t", "a2Fma2Etc2NoZWR1bGVyIQ", "-c", &properties])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("java: {e}"))?;
    if !format.status.success() {
        return Err(format!("kafka's storage format: {}", String::from_utf8_lossy(&format.stderr)));
    }
    Ok(vec![logging, "-cp".to_owned(), classes, "kafka.Kafka".to_owned(), properties])
}

/// Waits until the broker answers a request for metadata.
pub fn answers(bootstrap: &str, limit: Duration, died: impl Fn() -> Option<String>) -> Result<(), String> {
    let began = Instant::now();
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("broker.address.family", "v4")
        .set("reconnect.backoff.max.ms", "200")
        .set("log_level", "0")
        .create()
        .map_err(|e| e.to_string())?;
    loop {
        match client.fetch_metadata(None, Duration::from_secs(2)) {
            Ok(metadata) if !metadata.brokers().is_empty() => return Ok(()),
            Ok(_) => {}
            Err(e) if began.elapsed() > limit => return Err(format!("{bootstrap} does not answer: {e}")),
            Err(_) => {}
        }
        if let Some(said) = died() {
            return Err(format!("the broker ended: {said}"));
        }
    }
}

/// Writes a file.
pub fn write(path: &Path, content: &str) -> Result<(), String> {
    fs::write(path, content).map_err(|e| format!("{}: {e}", path.display()))
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

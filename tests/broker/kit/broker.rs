//! A real Kafka broker: downloaded once, shared by all tests of a run, and removed with them.

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

/// The time limit for a broker's answer.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Runs java beside a `read` that returns when the tests end. Then it kills java and removes its files, except the log
/// of a broker that exited by itself.
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

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    /// The bootstrap address.
    pub bootstrap: String,
    /// The shortest session timeout that the broker accepts, with a margin for two busy cores.
    pub session_timeout_ms: u32,
    /// The replication factor of the topics.
    pub replicas: i32,
    /// A bootstrap address with an IPv6 host, if the machine has IPv6. Clients that use it see only IPv6 brokers.
    pub six: Option<String>,
    /// The port of a [`Proxy`](super::proxy::Proxy), and the broker's port that the proxy connects to.
    pub proxied: Option<(u16, u16)>,
    /// The directory of Kafka's own tools; `None` for the broker of KAFKA_BOOTSTRAP.
    home: Option<PathBuf>,
    /// Keeps the pipe open.
    _guard: Option<Child>,
}

impl Broker {
    /// Returns several brokers as one.
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

    /// Runs one of Kafka's own tools on the broker. Prints a message and returns `None` if there are no tools.
    pub fn tool(&self, class: &str, args: &[&str]) -> Option<String> {
        let Some(home) = &self.home else {
            skipped(&format!("a part that needs Kafka's {class}, because KAFKA_BOOTSTRAP is set"));
            return None;
        };
        let classes = text(&home.join("libs").join("*"));
        let output = Command::new("java")
            // The tool runs for a second, so optimizing it does not pay.
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

/// The settings of the tests' broker besides those of every node. They remove the delays that tests would wait for.
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

/// Returns a second broker with Kafka's default settings; prints a message and returns `None` if there can be none. It
/// starts when a test first needs it: tuned settings have hidden faults before.
pub fn default_broker() -> Option<&'static Broker> {
    static BROKER: OnceLock<Result<Option<Broker>, String>> = OnceLock::new();
    let found = BROKER.get_or_init(|| {
        let Some(home) = home()? else { return Ok(None) };
        start(&home, "").or_else(|_| start(&home, "")).map(Some)
    });
    found.as_ref().expect("a Kafka broker").as_ref()
}

/// Starts a broker for one test, with Kafka's default settings and these lines; prints a message and returns `None` if
/// there can be none.
pub fn broker_with(more: &str) -> Option<&'static Broker> {
    let home = home().expect("Kafka")?;
    let broker = start(&home, more).or_else(|_| start(&home, more)).expect("a Kafka broker");
    Some(Box::leak(Box::new(broker)))
}

/// Returns the broker of this run; prints a message and returns `None` if there can be none.
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
    // Another program may have taken a port since it was chosen.
    start(&home, TUNED).or_else(|_| start(&home, TUNED)).map(Some)
}

/// Returns the directory of Kafka's programs; prints a message and returns `None` if they cannot be downloaded. It is
/// found once, so parallel tests do not download into the same directory.
pub fn home() -> Result<Option<PathBuf>, String> {
    static HOME: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
    HOME.get_or_init(find_home).clone()
}

fn find_home() -> Result<Option<PathBuf>, String> {
    if let Some(missing) = ["java", "mvn"].into_iter().find(|tool| !runs(tool)) {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        let said = format!("no {missing} and no KAFKA_BOOTSTRAP: the tests against a real Kafka broker cannot run");
        if ci {
            return Err(format!("{said}, and with CI=true they must not be skipped"));
        }
        skipped(&said);
        return Ok(None);
    }
    fetch().map(Some)
}

fn runs(tool: &str) -> bool {
    Command::new(tool).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Returns the directory with Kafka's `libs`, and downloads them if necessary.
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
            "mvn cannot download Kafka: {}\n{}{}",
            maven.status,
            String::from_utf8_lossy(&maven.stdout),
            String::from_utf8_lossy(&maven.stderr)
        ));
    }
    // Another run may have been faster; its copy is as good.
    if let Err(e) = fs::rename(&part, &home) {
        let _ = fs::remove_dir_all(&part);
        if !home.join("libs").is_dir() {
            return Err(format!("{}: {e}", home.display()));
        }
    }
    Ok(home)
}

/// Starts one node, with `more` lines in its settings.
fn start(home: &Path, more: &str) -> Result<Broker, String> {
    let (port, controller, proxy, upstream) = (free_port(), free_port(), free_port(), free_port());
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
listeners=PLAINTEXT://{bootstrap},PROXIED://127.0.0.1:{upstream},CONTROLLER://127.0.0.1:{controller}{on_six}
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
        // Kafka's default minimum is 6 s.
        session_timeout_ms: if more.contains("group.min.session.timeout.ms") { 3_000 } else { 6_000 },
        replicas: 1,
        six,
        proxied: Some((proxy, upstream)),
        home: Some(home.to_owned()),
        _guard: Some(guard),
    })
}

/// Runs java until the tests end or the returned pipe is closed; waits until the broker answers.
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

/// Formats a node's storage for the `server.properties` in its directory, with additional arguments. Returns java's
/// arguments to run it.
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

/// Waits until the broker answers a metadata request.
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

/// Converts a path to an argument.
pub fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

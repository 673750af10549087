//! One Apache Kafka node for all tests of this process: fetched once with Maven, gone when the process is gone.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

const VERSION: &str = "4.3.1";

/// Kills Kafka and removes its data when its standard input ends, which it does when the tests end in whatever way.
const WATCH: &str = r#"
java -Xmx1g -cp "$1/*" kafka.Kafka "$2/server.properties" >"$2/kafka.log" 2>&1 </dev/null &
kafka=$!
cat >/dev/null
kill -9 $kafka
wait $kafka 2>/dev/null
rm -rf "$2"
"#;

/// The broker's address, or nothing where there can be none and that is allowed.
pub fn bootstrap() -> Option<&'static str> {
    static BROKER: OnceLock<Option<String>> = OnceLock::new();
    BROKER.get_or_init(|| std::env::var("KAFKA_BOOTSTRAP").ok().or_else(start)).as_deref()
}

fn start() -> Option<String> {
    let has = |program: &str| Command::new(program).arg("-version").output().is_ok();
    if !has("java") || !has("mvn") {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs Java and Maven, or KAFKA_BOOTSTRAP");
        eprintln!("SKIPPED: the tests against Apache Kafka need Java 17 and Maven, or KAFKA_BOOTSTRAP=host:port");
        return None;
    }
    let libs = libraries();
    let data = target().join(format!("kafka-data-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&data);
    std::fs::create_dir_all(&data).expect("the target folder can be written");
    let (port, controller) = (free_port(), free_port());
    std::fs::write(data.join("server.properties"), properties(&data, port, controller)).expect("written");
    let formatted = Command::new("java")
        .args(["-cp", &format!("{}/*", libs.display()), "kafka.tools.StorageTool", "format"])
        .args(["-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
        .arg(data.join("server.properties"))
        .output()
        .expect("java starts");
    assert!(formatted.status.success(), "format: {}", String::from_utf8_lossy(&formatted.stderr));
    watch(&libs, &data);
    let address = format!("127.0.0.1:{port}");
    wait_for(&address, &data);
    Some(address)
}

/// The watcher lives as long as the pipe to it, which nobody closes but the end of this process.
fn watch(libs: &Path, data: &Path) {
    static WATCHER: Mutex<Option<Child>> = Mutex::new(None);
    let child = Command::new("sh")
        .args(["-c", WATCH, "watch"])
        .arg(libs)
        .arg(data)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh starts");
    *WATCHER.lock().expect("set once") = Some(child);
}

fn wait_for(address: &str, data: &Path) {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", address).create().expect("a client");
    let begun = Instant::now();
    while client.fetch_metadata(None, Duration::from_secs(1)).is_err() {
        if begun.elapsed() > Duration::from_secs(60) {
            let log = std::fs::read_to_string(data.join("kafka.log")).unwrap_or_default();
            panic!("Kafka did not start:\n{log}");
        }
    }
}

fn properties(data: &Path, port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={}/log
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
",
        data.display()
    )
}

/// Kafka's jars, fetched once for all runs.
fn libraries() -> PathBuf {
    let libs = target().join(format!("kafka-{VERSION}"));
    if libs.exists() {
        return libs;
    }
    let fetching = target().join(format!("kafka-{VERSION}-{}", std::process::id()));
    std::fs::create_dir_all(&fetching).expect("the target folder can be written");
    let pom = fetching.join("pom.xml");
    std::fs::File::create(&pom).and_then(|mut file| file.write_all(project().as_bytes())).expect("written");
    let fetched = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", fetching.display()))
        .output()
        .expect("mvn starts");
    assert!(fetched.status.success(), "Maven: {}", String::from_utf8_lossy(&fetched.stdout));
    // Another run may have been faster: then its copy serves.
    let _ = std::fs::rename(&fetching, &libs);
    libs
}

fn project() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )
    };
    let dependencies = [
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.1"),
        dependency("org.apache.logging.log4j", "log4j-core", "2.25.1"),
    ];
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>test</artifactId>\
         <version>1</version><dependencies>{}</dependencies></project>",
        dependencies.concat()
    )
}

pub fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).to_path_buf()
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

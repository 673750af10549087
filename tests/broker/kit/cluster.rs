//! Three brokers, each of which can be killed, stopped and restarted.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::broker::{self, Broker};
use super::client;
use super::process::{free_port, outliving_shell, signal, target_dir};
use super::proxy::Proxy;
use super::wait::eventually;

const NODES: usize = 3;

/// Partitions of the topics for offsets and for transactions.
const COORDINATOR_PARTITIONS: i32 = 4;

const LIMIT: Duration = Duration::from_secs(120);

/// Runs java until it exits or the tests end. Its data is removed with the tests, because until then the node may
/// restart.
const GUARD: &str = r#"
pid=$1; log=$2; data=$3; shift 3
exec 3<&0
java "$@" </dev/null >>"$log" 2>&1 &
java=$!
echo $java >"$pid"
(read _ <&3; [ -e "$pid" ] && kill -9 $java && rm -rf "$data" "$log") 2>/dev/null &
wait $java
rm -f "$pid"
"#;

/// A cluster that is removed when its last test ends.
pub struct Cluster {
    nodes: Vec<Node>,
    /// The cluster as a broker, for the tests' clients.
    pub broker: &'static Broker,
    /// Routes to the cluster, each through a proxy in front of each node. The engine does not know of the proxies.
    pub routes: Vec<Vec<Proxy>>,
}

struct Node {
    port: u16,
    data: PathBuf,
    java: Vec<String>,
    guard: Option<Child>,
}

impl Cluster {
    /// Starts the cluster. Returns `None` if there can be none.
    pub fn start() -> Option<Self> {
        Self::with_routes(0)
    }

    /// Starts the cluster with this many routes through proxies.
    pub fn with_routes(routes: usize) -> Option<Self> {
        Self::configured(routes, "")
    }

    /// Starts the cluster with additional settings, which override others.
    pub fn configured(routes: usize, more: &str) -> Option<Self> {
        let home = broker::home().expect("Kafka")?;
        let ports: Vec<(u16, u16)> = (0..NODES).map(|_| (free_port(), free_port())).collect();
        let proxied: Vec<Vec<(u16, u16)>> =
            (0..NODES).map(|_| (0..routes).map(|_| (free_port(), free_port())).collect()).collect();
        let voters: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, c))| format!("{}@127.0.0.1:{c}", n + 1)).collect();
        let nodes = ports.iter().enumerate().map(|(n, ports)| {
            let data = target_dir().join("tmp").join(format!("kafka-{}-{}", std::process::id(), ports.0));
            fs::create_dir_all(&data).expect("a directory");
            broker::write(
                &data.join("server.properties"),
                &(properties(n + 1, *ports, &proxied[n], &voters.join(","), &data) + more),
            )
            .expect("properties");
            let mut java = vec!["-Xmx512m".to_owned()];
            java.extend(broker::format(&home, &data, &[]).expect("formatted storage"));
            Node { port: ports.0, data, java, guard: None }
        });
        let mut nodes: Vec<Node> = nodes.collect();
        nodes.iter_mut().for_each(Node::run);
        let bootstrap: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let broker = Broker::of_cluster(bootstrap.join(","), NODES as i32, home);
        let route = |route: usize| proxied.iter().map(|ports| Proxy::start(ports[route].0, ports[route].1)).collect();
        let routes = (0..routes).map(route).collect();
        let cluster = Self { nodes, broker: Box::leak(Box::new(broker)), routes };
        cluster.wait_for(NODES);
        Some(cluster)
    }

    /// Waits until this many brokers are registered.
    pub fn wait_for(&self, count: usize) {
        broker::answers(&self.broker.bootstrap, LIMIT, || None).expect("a broker");
        let client: BaseConsumer = client::config(&self.broker.bootstrap).create().expect("a client");
        eventually(&format!("{count} brokers"), LIMIT, || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(5)).ok()?;
            (metadata.brokers().len() == count).then_some(())
        });
    }

    /// Waits until every node is up and every replica is in sync, so another node may fail.
    pub fn wait_for_replicas(&self) {
        self.wait_for(NODES);
        let client: BaseConsumer = client::config(&self.broker.bootstrap).create().expect("a client");
        eventually("all replicas are in sync", LIMIT, || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(5)).ok()?;
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            partitions.all(|p| p.leader() >= 0 && p.isr().len() == p.replicas().len()).then_some(())
        });
    }

    /// Returns the bootstrap address of a route.
    pub fn bootstrap_of(&self, route: usize) -> String {
        let addresses: Vec<String> =
            self.routes[route].iter().map(|proxy| format!("127.0.0.1:{}", proxy.port)).collect();
        addresses.join(",")
    }

    /// Returns the node that coordinates a consumer group.
    pub fn group_coordinator(&self, group: &str) -> Option<usize> {
        self.leader("__consumer_offsets", coordinator_partition(group))
    }

    /// Returns the coordinator of the transactions of a partition's owner.
    pub fn transaction_coordinator(&self, group: &str, topic: &str, partition: i32) -> Option<usize> {
        let owner = client::owner(&self.broker.bootstrap, group, topic, partition)?;
        self.leader("__transaction_state", coordinator_partition(&format!("{group}.{owner}.0")))
    }

    /// Returns the leader of a partition; `None` if it has no leader.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let client: BaseConsumer = client::config(&self.broker.bootstrap).create().expect("a client");
        let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
        let partition = metadata.topics().first()?.partitions().iter().find(|p| p.id() == partition)?;
        usize::try_from(partition.leader() - 1).ok()
    }

    /// Kills a node without a shutdown.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].signal("KILL");
    }

    /// Stops a node, and waits until it has exited.
    pub fn stop(&mut self, node: usize) {
        self.nodes[node].signal("TERM");
    }

    /// Sends a signal to a node that keeps running, such as SIGSTOP.
    pub fn signal(&self, node: usize, name: &str) {
        signal(self.nodes[node].pid(), name);
    }

    /// Starts all stopped nodes, and waits until all replicas are in sync.
    pub fn restore(&mut self) {
        self.nodes.iter_mut().filter(|node| !node.pid_file().exists()).for_each(Node::run);
        self.wait_for_replicas();
    }

    /// Restarts a node with its old data.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].run();
    }

    /// Returns all nodes.
    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // Closing the pipe kills the node.
            if let Some(mut guard) = node.guard.take() {
                let _ = guard.wait();
            }
            let _ = fs::remove_dir_all(&node.data);
            if !std::thread::panicking() {
                let _ = fs::remove_file(node.data.with_extension("log"));
            }
        }
    }
}

impl Node {
    fn pid_file(&self) -> PathBuf {
        self.data.join("pid")
    }

    fn run(&mut self) {
        let _ = fs::remove_file(self.pid_file());
        let (pid, log) = (broker::text(&self.pid_file()), broker::text(&self.data.with_extension("log")));
        let data = broker::text(&self.data);
        let mut args = vec![pid.as_str(), log.as_str(), data.as_str()];
        args.extend(self.java.iter().map(String::as_str));
        self.guard = Some(outliving_shell(GUARD, &args));
    }

    fn pid(&self) -> u32 {
        eventually("the node has a process", LIMIT, || fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok())
    }

    fn signal(&mut self, name: &str) {
        signal(self.pid(), name);
        if let Some(mut guard) = self.guard.take() {
            // Closing the pipe would kill the node, so it stays open until the node has exited.
            let input = guard.stdin.take();
            guard.wait().expect("the node ends");
            drop(input);
        }
    }
}

/// Returns the partition of the coordinator for a group or a transactional id: Java's hash of the name, modulo the
/// number of partitions.
fn coordinator_partition(id: &str) -> i32 {
    let hash = id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % COORDINATOR_PARTITIONS
}

fn properties(
    id: usize,
    (port, controller): (u16, u16),
    proxied: &[(u16, u16)],
    voters: &str,
    data: &std::path::Path,
) -> String {
    let listeners = |port: fn(&(u16, u16)) -> u16| -> String {
        proxied.iter().enumerate().map(|(n, ports)| format!(",WAY{n}://127.0.0.1:{}", port(ports))).collect()
    };
    let (advertised, upstream) = (listeners(|ports| ports.0), listeners(|ports| ports.1));
    let protocols: String = (0..proxied.len()).map(|n| format!(",WAY{n}:PLAINTEXT")).collect();
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port}{upstream},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
log.dirs={}
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions={COORDINATOR_PARTITIONS}
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions={COORDINATOR_PARTITIONS}
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=3000
log.cleaner.threads=1
num.network.threads=2
num.io.threads=2
",
        data.join("log").display()
    )
}

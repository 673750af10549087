//! A broker that denies every operation without a permission.
//!
//! The tests themselves use another listener as a super user, because only the engine's permissions matter.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::sync::OnceLock;

use crate::certificates::{self, STORE_PASSWORD};
use crate::guide;
use crate::kit::broker::{self, Broker, text, write};
use crate::kit::process::{configuration, free_port, target_dir};
use crate::kit::proxy::Proxy;

/// The password of all users. It must not appear anywhere.
pub const PASSWORD: &str = "opensesame-9f3b";

/// Users that log in by SCRAM: one for each test, so tests do not share permissions.
pub const USERS: &[&str] = &[
    "suffices",
    "no-read-schedules",
    "read-taken",
    "no-write-schedules",
    "no-write-history",
    "no-write-target",
    "no-write-dead-letters",
    "no-read-group",
    "no-write-transactions",
    "keeps-secrets",
    "connects",
    "rotates",
];

/// The user that logs in by PLAIN.
pub const PLAIN_USER: &str = "plain";

/// The user that OAUTHBEARER tokens name.
pub const TOKEN_USER: &str = "token";

/// The secured broker of this run.
pub struct Secured {
    /// The listener of the tests.
    pub broker: &'static Broker,
    /// The listener with TLS and credentials.
    pub address: String,
    /// A proxy in front of another such listener.
    pub cut: Proxy,
    /// A proxy in front of the listener that requires a client certificate.
    pub mutual: Proxy,
    /// The directory of the certificates.
    pub dir: PathBuf,
    _guard: Child,
}

/// Returns the broker; prints a message and returns `None` if there can be none.
pub fn secured() -> Option<&'static Secured> {
    static SECURED: OnceLock<Option<Secured>> = OnceLock::new();
    let start = || broker::home().expect("Kafka").map(|home| start(home).expect("a broker"));
    SECURED.get_or_init(start).as_ref()
}

fn start(home: PathBuf) -> Result<Secured, String> {
    let (open, closed, controller) = (free_port(), free_port(), free_port());
    let (cut, cut_upstream, mutual, mutual_upstream) = (free_port(), free_port(), free_port(), free_port());
    let dir = target_dir().join("tmp").join(format!("kafka-{}-{open}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    certificates::make(&dir)?;
    let bootstrap = format!("127.0.0.1:{open}");
    let address = format!("127.0.0.1:{closed}");
    let (log, store) = (text(&dir.join("log")), text(&dir.join("broker.p12")));
    let security = "org.apache.kafka.common.security";
    write(
        &dir.join("server.properties"),
        &format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=OPEN://{bootstrap},SECURED://{address},CUT://127.0.0.1:{cut_upstream},MUTUAL://127.0.0.1:{mutual_upstream},\
             CONTROLLER://127.0.0.1:{controller}
advertised.listeners=OPEN://{bootstrap},SECURED://{address},CUT://127.0.0.1:{cut},MUTUAL://127.0.0.1:{mutual}
inter.broker.listener.name=OPEN
listener.security.protocol.map=OPEN:PLAINTEXT,SECURED:SASL_SSL,CUT:SASL_SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT
log.dirs={log}
auto.create.topics.enable=false
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:ANONYMOUS
listener.name.secured.ssl.keystore.location={store}
listener.name.secured.ssl.keystore.password={STORE_PASSWORD}
listener.name.secured.ssl.keystore.type=PKCS12
listener.name.cut.ssl.keystore.location={store}
listener.name.cut.ssl.keystore.password={STORE_PASSWORD}
listener.name.cut.ssl.keystore.type=PKCS12
listener.name.cut.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.cut.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;
listener.name.mutual.ssl.keystore.location={store}
listener.name.mutual.ssl.keystore.password={STORE_PASSWORD}
listener.name.mutual.ssl.keystore.type=PKCS12
listener.name.mutual.ssl.truststore.location={store}
listener.name.mutual.ssl.truststore.password={STORE_PASSWORD}
listener.name.mutual.ssl.truststore.type=PKCS12
listener.name.mutual.ssl.client.auth=required
listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN,OAUTHBEARER
listener.name.secured.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;
listener.name.secured.plain.sasl.jaas.config={security}.plain.PlainLoginModule required \
             user_{PLAIN_USER}=\"{PASSWORD}\";
listener.name.secured.oauthbearer.sasl.jaas.config={security}.oauthbearer.OAuthBearerLoginModule required \
             unsecuredLoginStringClaim_sub=\"broker\";
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.threads=1
num.network.threads=2
num.io.threads=4
"
        ),
    )?;
    let scram = |user: &&str| ["--add-scram".to_owned(), format!("SCRAM-SHA-512=[name={user},password={PASSWORD}]")];
    let users: Vec<String> = USERS.iter().flat_map(scram).collect();
    let java = broker::format(&home, &dir, &users)?;
    let guard = broker::run(&dir, java, &bootstrap)?;
    let broker = Box::leak(Box::new(Broker::of_cluster(bootstrap, 1, home)));
    let (cut, mutual) = (Proxy::start(cut, cut_upstream), Proxy::start(mutual, mutual_upstream));
    Ok(Secured { broker, address, cut, mutual, dir, _guard: guard })
}

impl Secured {
    /// Returns the certificate of the authority that signed the broker's certificate.
    pub fn ca(&self) -> String {
        text(&self.dir.join("ca.pem"))
    }

    /// Returns the certificate of another authority.
    pub fn other_ca(&self) -> String {
        text(&self.dir.join("other.pem"))
    }

    /// Writes the guide's configuration file for this user. Returns its path.
    pub fn scram(&self, user: &str) -> String {
        configuration(user, &self.scram_text(user))
    }

    /// Returns the content of that file.
    pub fn scram_text(&self, user: &str) -> String {
        guide::block("yaml", "SCRAM-SHA-512")
            .replace("sasl.username: scheduler", &format!("sasl.username: {user}"))
            .replace("\"change me\"", &format!("{PASSWORD:?}"))
            .replace("/etc/kafka-scheduler/ca.pem", &self.ca())
    }
}

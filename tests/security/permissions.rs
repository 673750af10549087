//! The permissions in docs/security.md are sufficient, and each is necessary.

use std::thread;

use crate::guide::{Grant, commands, grants};
use crate::kit::case::TIMEOUT;
use crate::kit::client;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled, engine::Engine};
use crate::secured::{Secured, secured};

const ACLS: &str = "org.apache.kafka.tools.AclCommand";

/// The topics and permissions of one user.
struct Site {
    secured: &'static Secured,
    case: Case,
    user: &'static str,
    dead_letters: String,
}

impl Site {
    /// Grants every permission of the guide.
    fn new(user: &'static str) -> Option<Self> {
        let secured = secured()?;
        let case = Case::on(secured.broker, user, 1, 1);
        let dead_letters = format!("{}-dead-letters", case.group);
        client::create_topic(case.bootstrap(), &dead_letters, 1, &[]);
        let site = Self { secured, case, user, dead_letters };
        thread::scope(|scope| {
            for command in commands() {
                let site = &site;
                scope.spawn(move || site.tool(&command));
            }
        });
        Some(site)
    }

    /// Returns the name that replaces one of the guide's.
    fn name(&self, name: &str) -> String {
        match name {
            "schedules" => self.case.schedules[0].clone(),
            "history" => self.case.history.clone(),
            "orders" => self.case.target.clone(),
            "dead-letters" => self.dead_letters.clone(),
            "scheduler-cg" => self.case.group.clone(),
            "scheduler-cg." => format!("{}.", self.case.group),
            name => name.to_owned(),
        }
    }

    fn tool(&self, args: &[String]) {
        let user = format!("User:{}", self.user);
        let own = |arg: &String| if arg == "User:scheduler" { user.clone() } else { self.name(arg) };
        let args: Vec<String> = args.iter().map(own).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.secured.broker.tool(ACLS, &args).expect("Kafka's tools are available");
    }

    fn change(&self, how: &[&str], grant: &Grant) {
        let mut args = [how, &["--allow-principal", "User:scheduler", "--operation", &grant.operation]].concat();
        args.extend([grant.on.as_str(), &grant.name]);
        if grant.prefixed {
            args.extend(["--resource-pattern-type", "prefixed"]);
        }
        self.tool(&args.into_iter().map(str::to_owned).collect::<Vec<_>>());
    }

    fn engine(&self, more: &[(&str, &str)]) -> Engine {
        let file = self.secured.scram(self.user);
        let fixed = [("BOOTSTRAP_SERVERS", self.secured.address.as_str()), ("CONFIGURATION_FILE", &file)];
        self.case.engine_with(&[&fixed[..], more].concat())
    }

    /// Waits until one line of the log has all these texts.
    fn says(&self, engine: &Engine, texts: &[&str]) {
        let texts: Vec<String> = texts.iter().map(|part| self.name(part)).collect();
        eventually(&format!("one line says {texts:?}"), TIMEOUT, || {
            let output = engine.output();
            output
                .lines()
                .any(|line| line.contains("WARN") && texts.iter().all(|part| line.contains(part.as_str())))
                .then_some(())
        });
    }

    fn dead_letter(&self) {
        let dead = || (!client::read_all(self.case.bootstrap(), &self.dead_letters).is_empty()).then_some(());
        eventually("the bad record is a dead letter", TIMEOUT, dead);
    }
}

/// Returns a record that cannot fire.
fn bad(case: &Case) -> Scheduled {
    Scheduled { headers: Vec::new(), ..case.due_in("bad", "v", 0) }
}

/// Revokes a permission: the log must name it, and nothing may fire. Once it is granted again, everything must fire.
fn needed(user: &'static str, grant: &Grant, said: &[&str]) {
    let Some(site) = Site::new(user) else { return };
    site.change(&["--remove", "--force"], grant);
    let dead_letters = site.dead_letters.clone();
    let wants_dead_letters = grant.name == "dead-letters";
    let more = [("DEAD_LETTER_TOPIC", dead_letters.as_str())];
    let mut engine = site.engine(if wants_dead_letters { &more } else { &[] });
    site.case.produce(&[site.case.due_in("k", "v", 0).target_key("k")]);
    if wants_dead_letters {
        site.case.produce(&[bad(&site.case)]);
    }
    site.says(&engine, said);
    if !wants_dead_letters {
        assert_eq!(site.case.read_target(), [], "nothing fires without the permission");
    }
    site.change(&["--add"], grant);
    assert_eq!(site.case.fired(1).len(), 1, "the schedule fires with the permission");
    if wants_dead_letters {
        site.dead_letter();
    }
    assert!(engine.running());
    engine.stop();
}

#[test]
fn the_documented_permissions_suffice() {
    let Some(site) = Site::new("suffices") else { return };
    let dead_letters = [("DEAD_LETTER_TOPIC", site.dead_letters.as_str())];
    let mut first = site.engine(&dead_letters);
    site.case.produce(&[site.case.due_in("one", "v", 0).target_key("one"), bad(&site.case)]);
    assert_eq!(site.case.fired(1).len(), 1);
    site.dead_letter();
    site.case.produce(&[Scheduled::new("two", "v", now_s() + 1, &site.case.target).target_key("two")]);
    first.kill();
    // It fences the one that was killed, and fires for it.
    let mut second = site.engine(&dead_letters);
    assert_eq!(site.case.fired(2).len(), 2);
    assert_eq!(site.case.read_history().len(), 2);
    second.stop();
    for (engine, output) in [("first", first.output()), ("second", second.output())] {
        let complaints = |line: &&str| {
            let wants = line.contains("grant") && !line.contains("grant DescribeConfigs");
            wants || line.contains("ERROR") || line.contains("could not be fenced")
        };
        let complaints: Vec<&str> = output.lines().filter(complaints).collect();
        assert!(complaints.is_empty(), "the {engine} complains: {complaints:#?}");
    }
}

/// All permissions of the guide; a test below revokes each of them.
fn each() -> [Grant; 7] {
    [
        Grant::new("Read", "--topic", "schedules"),
        Grant::new("Write", "--topic", "schedules"),
        Grant::new("Write", "--topic", "history"),
        Grant::new("Write", "--topic", "orders"),
        Grant::new("Read", "--group", "scheduler-cg"),
        Grant::new("Write", "--transactional-id", "scheduler-cg."),
        Grant::new("Write", "--topic", "dead-letters"),
    ]
}

#[test]
fn the_guide_grants_nothing_that_is_not_tested() {
    assert_eq!(grants(), each());
}

#[test]
fn without_read_on_a_schedules_topic() {
    needed("no-read-schedules", &each()[0], &["grant Read", "schedules"]);
}

#[test]
fn losing_read_on_a_schedules_topic_is_reported() {
    let Some(site) = Site::new("read-taken") else { return };
    let mut engine = site.engine(&[]);
    engine.ready();
    site.change(&["--remove", "--force"], &each()[0]);
    // The answer to a fetch is what reports it.
    site.case.produce(&[site.case.due_in("k", "v", 0).target_key("k")]);
    site.says(&engine, &["grant Read", "SCHEDULES_TOPICS"]);
    site.change(&["--add"], &each()[0]);
    assert_eq!(site.case.fired(1).len(), 1, "the schedule fires with the permission");
    engine.stop();
}

#[test]
fn without_write_on_a_schedules_topic() {
    needed("no-write-schedules", &each()[1], &["grant Write", "schedules"]);
}

#[test]
fn without_write_on_the_history_topic() {
    needed("no-write-history", &each()[2], &["grant", "Write", "history"]);
}

#[test]
fn without_write_on_a_target_topic() {
    needed("no-write-target", &each()[3], &["grant Write", "orders"]);
}

#[test]
fn without_read_on_the_group() {
    needed("no-read-group", &each()[4], &["grant Read", "scheduler-cg"]);
}

#[test]
fn without_write_on_the_transactional_ids() {
    needed("no-write-transactions", &each()[5], &["grant Write", "scheduler-cg."]);
}

#[test]
fn without_write_on_the_dead_letter_topic() {
    needed("no-write-dead-letters", &each()[6], &["grant", "Write", "dead-letters"]);
}

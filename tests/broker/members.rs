//! The group's members: instances recognize each other, and report a foreign program.

use std::time::Duration;

use crate::kit::Case;
use crate::kit::case::TIMEOUT;
use crate::kit::engine::Engine;
use crate::kit::process::configuration;
use crate::kit::wait::eventually;
use crate::moving_over::member;

/// The beginning of the log line about foreign members.
const FOREIGN: &str = "the group has members that do not call themselves";

fn lines(engine: &Engine, text: &str) -> Vec<String> {
    engine.output().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

#[test]
fn instances_identify_each_other_by_what_they_commit() {
    let Some(case) = Case::new("client-ids", 4) else { return };
    let start = |name: &str, id: &str| {
        let file = configuration(name, &format!("kafka.common.configuration:\n  client.id: {id}\n"));
        case.engine_with(&[("CONFIGURATION_FILE", &file), ("LOG_LEVEL", "debug")])
    };
    let mut engines = [start("client-id-1", "billing"), start("client-id-2", "my app/2 %")];
    for engine in &engines {
        eventually("the instance is ready and has described every member", TIMEOUT, || {
            assert_eq!(lines(engine, FOREIGN), [""; 0], "both are instances of the engine");
            let output = engine.output();
            let rebalanced = output.rfind(" partitions ")?.max(output.rfind("partition live")?);
            (output.rfind("every member of the group is identified")? > rebalanced).then_some(())
        });
    }
    case.settled();
    for engine in &engines {
        assert_eq!(lines(engine, FOREIGN), [""; 0], "after a commit, both are instances of the engine");
    }
    let other = member(&case, "cooperative-sticky");
    eventually("both name the other program", TIMEOUT, || {
        while let Some(Ok(_)) = other.poll(Duration::from_millis(10)) {}
        engines.iter().all(|engine| !lines(engine, FOREIGN).is_empty()).then_some(())
    });
    for engine in &engines {
        let told = lines(engine, FOREIGN);
        assert!(told.len() == 1 && told[0].contains("rdkafka/"), "{told:?}");
        assert!(
            !told[0].contains("billing") && !told[0].contains("my app"),
            "the line names only the other program: {told:?}"
        );
    }
    drop(other);
    engines.iter_mut().for_each(Engine::stop);
}

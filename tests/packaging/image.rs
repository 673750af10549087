//! The image: its build commands are tested elsewhere, and it runs without privileges.

use crate::{manifest, read, text, tool};

/// Returns the Dockerfile's instructions, one per line.
fn instructions() -> Vec<(String, String)> {
    let text = read("packaging/Dockerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let split = |line: &str| line.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()));
    joined.lines().filter_map(split).collect()
}

fn of(name: &str) -> Vec<String> {
    instructions().into_iter().filter(|(instruction, _)| instruction == name).map(|(_, rest)| rest).collect()
}

#[test]
fn its_build_command_is_run_elsewhere() {
    let run_elsewhere = read(".ci/run") + &read("README.md");
    let runs = of("RUN");
    let steps: Vec<String> = runs
        .iter()
        .flat_map(|run| run.split("&&"))
        .map(|step| step.split_whitespace().filter(|part| !part.starts_with("--mount=")).collect::<Vec<_>>().join(" "))
        .collect();
    let unknown: Vec<&String> = steps
        .iter()
        .filter(|step| !step.starts_with("strip ") && !run_elsewhere.lines().any(|line| line == **step))
        .collect();
    assert!(!steps.is_empty() && unknown.is_empty(), "neither .ci/run nor the README has {unknown:?}");
}

#[test]
fn it_runs_the_program_as_an_unprivileged_user() {
    assert_eq!(of("ENTRYPOINT"), [r#"["/usr/local/bin/kafka-scheduler"]"#]);
    let stages = of("FROM");
    let names: Vec<&str> = stages.iter().filter_map(|stage| stage.rsplit_once(" AS ")).map(|(_, name)| name).collect();
    // The last stage is the one that is built by default.
    assert_eq!(names, ["build", "runtime", "mini", "scheduler"]);
    assert_eq!(of("CMD"), [r#"["mini"]"#, r#"["run"]"#]);
    let deployment = manifest("Deployment");
    let pod = &deployment["spec"]["template"]["spec"]["securityContext"];
    let user = format!("{}:{}", pod["runAsUser"], pod["runAsGroup"]);
    assert_eq!(of("USER"), [user]);
    let image = text(&deployment, "/spec/template/spec/containers/0/image");
    assert_eq!(image.rsplit_once(':').expect("a tag").1, env!("CARGO_PKG_VERSION"));
}

#[test]
fn its_compiler_is_new_enough() {
    let version = |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().expect("a number")).collect() };
    let from = of("FROM").remove(0);
    let tag = from.split([':', ' ']).nth(1).expect("a tag").trim_end_matches("-bookworm").to_owned();
    assert!(version(&tag) >= version(env!("CARGO_PKG_RUST_VERSION")), "{tag}");
}

#[test]
#[cfg(target_os = "linux")]
fn it_has_the_libraries_that_the_program_needs() {
    // Of the libraries that a Rust program may need, distroless/cc has these.
    const THERE: &[&str] = &["libc.so", "libm.so", "libgcc_s.so", "ld-linux"];
    let Some(said) = tool("readelf", &["--dynamic", env!("CARGO_BIN_EXE_kafka-scheduler")]) else { return };
    let needed = said.lines().filter(|line| line.contains("(NEEDED)")).filter_map(|line| line.split(['[', ']']).nth(1));
    let needed: Vec<&str> = needed.collect();
    assert!(needed.iter().any(|name| name.starts_with("libc.so")), "{said}");
    let there = |name: &&&str| THERE.iter().any(|there| name.starts_with(there));
    let missing: Vec<&&str> = needed.iter().filter(|name| !there(name)).collect();
    assert!(missing.is_empty(), "the image has no {missing:?}");
}

#[test]
fn nothing_that_the_build_needs_is_left_out() {
    let ignored = read("packaging/Dockerfile.dockerignore");
    let ignored: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    let needed = ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "src", "sim", "examples", "tests", "benches"];
    let missing: Vec<&&str> = needed.iter().filter(|name| ignored.contains(*name) || ignored.contains(&"*")).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(ignored.contains(&"target") && ignored.contains(&".git"), "{ignored:?}");
}

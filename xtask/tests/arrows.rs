//! Who may use whom: the arrows of docs/architecture.md, kept.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

/// Names of the packages that `cargo tree` lists.
fn tree(args: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["tree", "--offline", "--locked", "--all-features"])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Every package that `package` is built from, directly or not, and itself.
fn built_from(package: &str) -> BTreeSet<String> {
    tree(&["--package", package])
}

/// The names of all packages of the workspace.
fn workspace() -> BTreeSet<String> {
    tree(&["--workspace", "--depth", "0"])
}

/// The packages of the workspace that `package` uses are among `allowed`, and
/// nothing in its tree is in `forbidden`.
fn check(package: &str, allowed: &[&str], forbidden: &[&str]) {
    let found = built_from(package);
    let mut workspace = workspace();
    assert!(workspace.remove(package), "{package} is not in the workspace");
    for used in found.intersection(&workspace) {
        assert!(allowed.contains(&used.as_str()), "{package} must not use {used}");
    }
    for used in forbidden {
        assert!(!found.contains(*used), "{package} must not be built from {used}");
    }
}

/// What only drivers use.
const WORLD: [&str; 4] = ["tokio", "tonic", "hyper", "socket2"];

#[test]
fn what_is_used_is_seen() {
    let found = built_from("slim-node");
    for package in ["slim-node", "slim-link", "slim-proto", "tokio"] {
        assert!(found.contains(package), "{package} is missing in {found:?}");
    }
}

#[test]
fn proto_and_auth_stand_alone() {
    check("slim-proto", &[], &WORLD);
    check("slim-auth", &[], &WORLD);
}

#[test]
fn the_engine_knows_no_runtime_and_no_link() {
    check("slim-session", &["slim-proto", "slim-auth"], &WORLD);
}

#[test]
fn the_link_knows_no_session() {
    check("slim-link", &["slim-proto"], &["openmls"]);
}

#[test]
fn the_node_knows_no_session() {
    // It verifies who opens a link, and never what is in a message.
    let below = ["slim-link", "slim-proto", "slim-auth", "slim-identity", "slim-telemetry"];
    check("slim-node", &below, &["openmls"]);
}

#[test]
fn a_client_contains_no_router() {
    let below = ["slim-session", "slim-link", "slim-auth", "slim-proto"];
    check("slim-client", &below, &["dashmap"]);
    let programs = ["slim-client", "slim-identity", "slim-telemetry"];
    check("slim-cli", &[&below[..], &programs].concat(), &["dashmap"]);
}

#[test]
fn where_telemetry_goes_is_for_programs_to_say() {
    check("slim-telemetry", &[], &[]);
    let exporter = "opentelemetry-otlp";
    assert!(built_from("slim-telemetry").contains(exporter));
    assert!(!built_from("slim-client").contains(exporter));
}

#[test]
fn who_reads_keys_knows_no_session_and_no_link() {
    // A library of its own speaks gRPC with a SPIFFE agent, if that is wanted.
    check("slim-identity", &["slim-auth"], &["openmls"]);
}

#[test]
fn nobody_uses_the_programs() {
    for end in ["slim-cli", "slim-testkit", "slim-containers", "slim-bench", "xtask"] {
        let users = tree(&["--workspace", "--invert", end]);
        assert_eq!(users, BTreeSet::from([end.to_owned()]));
    }
    assert!(tree(&["--workspace", "--invert", "slim-proto"]).contains("slim-cli"));
}

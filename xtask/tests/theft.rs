//! The transcript in docs/security.md: a name that is stolen where names belong to
//! somebody, with the real programs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DOCUMENT: &str = include_str!("../../docs/security.md");

/// Ends what runs in the background, whatever becomes of the test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Where the programs are, built as they are now.
fn programs() -> String {
    let build = ["build", "--offline", "--locked", "-p", "slim-node", "-p", "slim-cli"];
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let built = Command::new(env!("CARGO")).args(build).current_dir(root).status().unwrap();
    assert!(built.success());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("debug");
    assert!(folder.join("slim-node").exists() && folder.join("slim").exists(), "{folder:?}");
    folder.display().to_string()
}

/// The blocks of this kind in the section.
fn blocks<'t>(section: &'t str, kind: &str) -> Vec<&'t str> {
    let start = format!("```{kind}\n");
    section.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_transcript_is_true() {
    let section = DOCUMENT.split("## A name that is stolen").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let section = section.replace("127.0.0.1:46357", &format!("127.0.0.1:{port}"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("theft");
    fs::create_dir_all(&folder).unwrap();
    let [node, policy] = blocks(&section, "yaml")[..] else { panic!("two files") };
    fs::write(folder.join("node.yaml"), node).unwrap();
    fs::write(folder.join("policy.yaml"), policy).unwrap();
    let path = format!("{}:{}", programs(), std::env::var("PATH").unwrap());
    let shell = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(&folder).env("PATH", &path).stdin(Stdio::null());
        shell.env("SLIM_SHARED_SECRET", "a secret of at least thirty-two bytes");
        shell
    };
    let [transcript] = blocks(&section, "console")[..] else { panic!("one transcript") };
    let mut background = Vec::new();
    let mut count = 0;
    for step in transcript.split("$ ").skip(1) {
        let (command, expected) = step.split_once('\n').unwrap();
        let said = match command.strip_suffix(" &") {
            Some(command) => {
                // In place of the shell, so that it ends when it is killed.
                let command = format!("exec {command}");
                let mut child = shell(&command).stdout(Stdio::piped()).process_group(0).spawn();
                let mut line = String::new();
                let stdout = child.as_mut().unwrap().stdout.take().unwrap();
                background.push(Background(child.unwrap()));
                BufReader::new(stdout).read_line(&mut line).unwrap();
                line
            }
            None => {
                let output = shell(&format!("{command} 2>&1")).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            }
        };
        assert_eq!(said, expected, "$ {command}");
        count += 1;
    }
    assert_eq!(count, 6);
}

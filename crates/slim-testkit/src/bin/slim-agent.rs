//! A SPIFFE agent for tests: `slim-agent SOCKET DOMAIN LIFETIME NAME...`. Its tokens last
//! so many seconds, and the names have certificates, too. It says where it listens. Lines of its input, each answered with `ok`:
//!
//! - `rotate`: it signs with a new key, and the old ones still verify;
//! - `forget`: only the newest still does.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read")]

use std::path::PathBuf;
use std::process::ExitCode;

use slim_testkit::agent::Agent;
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, domain, lifetime, names @ ..] = &arguments[..] else { return usage() };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Ok(lifetime) = lifetime.parse() else { return usage() };
    let served = tokio::runtime::Runtime::new().and_then(|runtime| {
        runtime.block_on(async {
            let path = PathBuf::from(socket);
            let agent = Agent::start_with(&path, domain, &names)?;
            agent.set_lifetime(lifetime);
            println!("listening on {}", path.display());
            let mut lines = BufReader::new(stdin()).lines();
            while let Some(line) = lines.next_line().await? {
                match line.as_str() {
                    "rotate" => agent.rotate(),
                    "forget" => agent.forget_old_keys(),
                    _ => {
                        println!("what is {line:?}?");
                        continue;
                    }
                }
                println!("ok");
            }
            // Until it is told to end by other means.
            std::future::pending().await
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slim-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: slim-agent SOCKET DOMAIN LIFETIME NAME...");
    ExitCode::FAILURE
}

//! A proxy that stops a link at a message: `slim-holding NODE`. It says where it
//! listens. Lines of its input, each answered with `ok`:
//!
//! - `hold KIND in|out`: the first message of this kind from or to the node waits,
//!   and all that follows it on its link; `held` tells when it is there;
//! - `lose KIND in|out`: all of them are lost;
//! - `pass`: no more of it, and what is held goes on;
//! - `cut`: no more of it, and the link of what is held ends.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read")]

use std::process::ExitCode;
use std::sync::Arc;

use slim_testkit::holding::{Catch, Holding};
use slim_testkit::relay::{self, Direction};
use tokio::net::TcpListener;

fn main() -> ExitCode {
    let node = std::env::args().nth(1).and_then(|node| node.parse().ok());
    let Some(node) = node else {
        eprintln!("usage: slim-holding ADDRESS:PORT");
        return ExitCode::FAILURE;
    };
    let holding = Holding::new(|| println!("held"));
    let served = tokio::runtime::Runtime::new().and_then(|runtime| {
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("listening on {}", listener.local_addr()?);
            std::thread::spawn({
                let holding = Arc::clone(&holding);
                move || listen_to_stdin(&holding)
            });
            relay::serve(listener, node, move |direction| holding.policy(direction)).await
        })
    });
    if let Err(error) = served {
        eprintln!("slim-holding: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn listen_to_stdin(holding: &Holding) {
    for line in std::io::stdin().lines() {
        let Ok(line) = line else { return };
        let words: Vec<&str> = line.split(' ').collect();
        match (words.as_slice(), words.get(2).and_then(|word| direction(word))) {
            (["hold", kind, _], Some(direction)) => holding.catch(Catch::Hold, kind, direction),
            (["lose", kind, _], Some(direction)) => holding.catch(Catch::Lose, kind, direction),
            (["pass"], _) => holding.release(true),
            (["cut"], _) => holding.release(false),
            _ => {
                println!("what is {line:?}?");
                continue;
            }
        }
        println!("ok");
    }
}

fn direction(word: &str) -> Option<Direction> {
    match word {
        "in" => Some(Direction::In),
        "out" => Some(Direction::Out),
        _ => None,
    }
}

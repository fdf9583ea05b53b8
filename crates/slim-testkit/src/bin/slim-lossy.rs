//! A proxy that loses messages: `slim-lossy NODE`. It says where it listens. Each
//! line of its input is how many of a thousand messages are lost from then on, and
//! is answered with how many were passed on and lost until then.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that people read")]

use std::process::ExitCode;
use std::sync::Arc;

use slim_testkit::lossy::{self, Loss};
use tokio::net::TcpListener;

fn main() -> ExitCode {
    let node = std::env::args().nth(1).and_then(|node| node.parse().ok());
    let Some(node) = node else {
        eprintln!("usage: slim-lossy ADDRESS:PORT");
        return ExitCode::FAILURE;
    };
    let loss = Arc::new(Loss::default());
    let served = tokio::runtime::Runtime::new().and_then(|runtime| {
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("listening on {}", listener.local_addr()?);
            std::thread::spawn({
                let loss = Arc::clone(&loss);
                move || listen_to_stdin(&loss)
            });
            lossy::serve(listener, node, loss).await
        })
    });
    if let Err(error) = served {
        eprintln!("slim-lossy: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn listen_to_stdin(loss: &Loss) {
    for line in std::io::stdin().lines() {
        let Ok(line) = line else { return };
        match line.parse() {
            Ok(per_mille) => loss.set_per_mille(per_mille),
            Err(error) => eprintln!("{line:?}: {error}"),
        }
        let (passed, lost) = loss.counts();
        println!("passed {passed} lost {lost}");
    }
}

//! Any text as the node's configuration file.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// Modules of the program `slim-node`.
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../../crates/slim-node/src"]
mod node {
    pub(crate) mod file;
}

use node::file::{Reference, parse};

fuzz_target!(|text: &str| {
    let resolve = |reference: Reference<'_>| match reference {
        Reference::Env("LEVEL") => Ok("debug".to_owned()),
        Reference::Env(name) | Reference::File(name) => Err(format!("{name:?} is not there")),
    };
    match parse(text, &resolve) {
        Ok(config) => {
            assert_ne!(config.negotiation_timeout, Some(std::time::Duration::ZERO));
            assert_ne!(config.worker_threads, Some(0));
        }
        // One line that says something, whatever the file is like.
        Err(error) => assert!(!error.to_string().trim().is_empty()),
    }
});

//! The `slim` command as its users meet it: as a process, with pipes or a terminal.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

mod auth;
mod bench;
mod doctor;
mod group;
mod identity;
mod input;
mod node;
mod p2p;
mod spiffe;
mod support;
mod terminal;
mod tls;
mod top;
mod usage;

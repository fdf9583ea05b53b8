//! What is compared, and how each of them is started.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::load::Load;
use super::process::Process;
use crate::cargo;
use crate::interop::python;
use crate::node::{Node, program};
use crate::stage::ports;

/// Something that passes messages on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    /// This project's node.
    Ours,
    /// The reference's node.
    Reference,
    /// A relay on tonic, without routing and MAC.
    Relay,
    /// What the machine allows, without routing and MAC.
    Floor,
}

impl Side {
    /// Nodes that route.
    pub(super) const NODES: [Self; 2] = [Self::Ours, Self::Reference];
    /// And the yardsticks.
    pub(super) const ALL: [Self; 4] = [Self::Ours, Self::Reference, Self::Relay, Self::Floor];

    /// Whether its links have a header MAC.
    pub(super) fn has_mac(self) -> bool {
        matches!(self, Self::Ours | Self::Reference)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Reference => "reference",
            Self::Relay => "relay",
            Self::Floor => "floor",
        })
    }
}

/// The programs, all of them with optimisation.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    node: PathBuf,
    relay: PathBuf,
    floor: PathBuf,
    load: PathBuf,
    pub(super) slim: PathBuf,
    /// Of the virtual environment.
    pub(super) python: PathBuf,
}

impl Tools {
    /// Builds what is missing, or takes what is in `programs`.
    ///
    /// # Errors
    /// If it cannot be built, or there is no reference.
    pub(super) fn new(python: &str, programs: Option<&Path>) -> anyhow::Result<Self> {
        let folder = cargo::target_folder()?.join("interop");
        let python = python::environment(python, &folder.join("venv"))?;
        let names = ["slim-node", "yardstick-relay", "yardstick-floor", "slim-load", "slim"];
        let [node, relay, floor, load, slim] = match programs {
            Some(folder) => names.map(|name| folder.join(name)),
            None => {
                println!("building, with optimisation");
                let packages = ["slim-node", "slim-cli", "slim-bench"];
                let packages = packages.map(|package| format!("--package={package}"));
                let packages = packages.each_ref().map(String::as_str);
                cargo::build(&[&["--release", "--bins"], &packages[..]].concat(), names)?
            }
        };
        Ok(Self { node, relay, floor, load, slim, python })
    }

    /// Starts one of them on a free port, without a log.
    ///
    /// # Errors
    /// If it does not come up.
    pub(super) fn start(&self, side: Side) -> anyhow::Result<Node> {
        let mut command = match side {
            Side::Ours => program(&self.node),
            Side::Relay => program(&self.relay),
            Side::Floor => program(&self.floor),
            Side::Reference => {
                let mut command = program(&self.python);
                command.arg(cargo::root().join("xtask/src/interop/peer.py"));
                command
            }
        };
        match side {
            Side::Ours => command.args(["--log", "error", "--listen", "127.0.0.1:0"]),
            Side::Relay | Side::Floor => command.args(["--listen", "127.0.0.1:0"]),
            Side::Reference => {
                command.args(["--log", "error", "node", "--listen"]);
                command.arg(format!("127.0.0.1:{}", ports::free()?))
            }
        };
        Node::start(&mut command, None).with_context(|| format!("starting {side}"))
    }

    /// Starts a load on a node, and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot connect.
    pub(super) fn load(&self, side: Side, node: &Node, args: &[&str]) -> anyhow::Result<Load> {
        let mut command = program(&self.load);
        command.args(["--node", node.address()]);
        if !side.has_mac() {
            command.arg("--without-mac");
        }
        Load::start(command.args(args), Process(node.id()))
    }
}

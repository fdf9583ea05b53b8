//! A bad network between the node and its members.

use anyhow::{Context, ensure};

use super::Stage;
use crate::node::Node;

impl Stage<'_> {
    /// Puts a network between the node and the members that start from now on, which
    /// loses nothing at first.
    pub(crate) fn start_network(&mut self) -> anyhow::Result<()> {
        let log = self.log("network")?;
        let mut command = self.tools.lossy(&self.node_address);
        self.network = Some(Node::start(&mut command, Some(log))?);
        Ok(())
    }

    /// Has the network lose so many of a thousand messages from now on, of any kind
    /// but the negotiation of links.
    ///
    /// # Errors
    /// If nothing was lost since it began to lose some: then nothing was tried.
    pub(crate) fn lose_per_mille(&mut self, per_mille: u32) -> anyhow::Result<()> {
        let network = self.network.as_mut().context("there is no network")?;
        let so_far = network.ask(&per_mille.to_string())?;
        self.note("network", &format!("loses {per_mille} of 1000 from now on; {so_far}"))?;
        ensure!(per_mille > 0 || !so_far.ends_with(" lost 0"), "nothing was lost: {so_far}");
        Ok(())
    }
}

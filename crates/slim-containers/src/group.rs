//! A moderator and its participants, each in a container.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::judge::{Account, missing, verdict};
use crate::member::Member;
use crate::node::Node;
use crate::site::{Network, Site};
use crate::until;

/// An hour. More often than this, a busy machine does nothing but repeat.
const PATIENCE: [&str; 2] = ["--timeout=2", "--max-retries=1800"];

/// Between two lines of a member, while something happens to the others.
const PACE: Duration = Duration::from_millis(100);

/// A group with MLS. The moderator is the last of the members.
#[derive(Debug)]
pub struct Group {
    /// Everybody.
    pub members: Vec<Member>,
    lines: u32,
}

impl Group {
    /// Starts a member at each of these nodes, on this network, and waits until they are
    /// a group. What somebody misses is sent again every two seconds, for as long as it takes.
    ///
    /// # Panics
    /// If they do not become one.
    pub async fn form(site: &Site, places: &[(&Node, &Network)]) -> Self {
        Self::form_with(site, places, &PATIENCE).await
    }

    /// As [`Self::form`], with further options of the moderator.
    ///
    /// # Panics
    /// If they do not become one.
    pub async fn form_with(site: &Site, places: &[(&Node, &Network)], options: &[&str]) -> Self {
        let ((node, network), others) = places.split_last().expect("there is a moderator");
        let mut members = Vec::new();
        for (number, (node, network)) in others.iter().enumerate() {
            let name = format!("client-{number}");
            members.push(Member::start(site, &name, network, &node.address(), &[]).await);
        }
        let mut args = ["--remote=agntcy/ns/chat", "--enable-mls"].to_vec();
        args.extend(options);
        for member in &members {
            member.until_told("waiting", |_| true).await;
            args.extend(["--invites", &member.address]);
        }
        let moderator = Member::start(site, "moderator", network, &node.address(), &args).await;
        for member in &members {
            let is_it = |event: &serde_json::Value| event["name"] == member.address.as_str();
            let invite = moderator.until_told("invite", is_it).await;
            assert_eq!(invite["outcome"], "joined", "{invite}");
        }
        members.push(moderator);
        for member in &members {
            let session = member.until_told("session", |_| true).await;
            assert_eq!(session["mls"], true, "{session}");
        }
        Self { members, lines: 0 }
    }

    /// The moderator.
    ///
    /// # Panics
    /// Never: there is one.
    pub fn moderator(&mut self) -> &mut Member {
        self.members.last_mut().expect("there is a moderator")
    }

    /// Everybody says as many lines, without waiting for anybody.
    ///
    /// # Panics
    /// If a member does not read.
    pub async fn speak(&mut self, lines: u32) {
        for _ in 0..lines {
            self.lines += 1;
            for member in &mut self.members {
                let line = format!("line {} of {}", self.lines, member.address);
                member.say(&line).await;
            }
        }
    }

    /// Everybody says a line again and again until `something` is done, and once more.
    ///
    /// # Panics
    /// If a member does not read.
    pub async fn speak_while<T>(&mut self, something: impl Future<Output = T>) -> T {
        let mut something = pin!(something);
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let done = loop {
            tokio::select! {
                done = &mut something => break done,
                _ = pace.tick() => self.speak(1).await,
            }
        };
        self.speak(1).await;
        done
    }

    /// Waits until everybody heard everything and knows what became of what it said, and
    /// judges it.
    ///
    /// # Panics
    /// If that does not happen, or is not right.
    pub async fn settle(&self) {
        let accounts = until("everybody hears everything", async || {
            let accounts: Vec<Account> = self.members.iter().map(Member::account).collect();
            let missing = missing(&accounts);
            if missing.is_empty() { Ok(accounts) } else { Err(missing.join("; ")) }
        })
        .await;
        if let Err(complaint) = verdict(&accounts) {
            panic!("{complaint}");
        }
    }

    /// The moderator closes the group, and everybody ends well.
    ///
    /// # Panics
    /// If somebody does not.
    pub async fn end(mut self) {
        self.settle().await;
        self.moderator().command("exit").await;
        for member in &self.members {
            assert_eq!(member.program.ended().await, 0, "{}", member.address);
        }
    }
}

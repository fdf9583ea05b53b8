//! A group of three in one program: a moderator invites two, everybody says hello.
//!
//! Start a node, then `cargo run -p slim-client --example group`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use slim_client::{Client, Name, Session, SessionConfig, SessionEvent};

const NODE: &str = "http://127.0.0.1:46357";
const SECRET: &str = "for-trying-out-on-one-machine-only";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let moderator = connect("agntcy/ns/moderator").await?;
    let members = [connect("agntcy/ns/client-1").await?, connect("agntcy/ns/client-2").await?];

    let channel: Name = "agntcy/ns/chat".parse()?;
    let session = moderator.create_group(channel, SessionConfig::default()).await?;
    // Each member says hello as soon as it is in, and hears what it can.
    let listeners: Vec<_> = members.iter().cloned().map(|m| tokio::spawn(take_part(m))).collect();
    for member in &members {
        println!("{} joined", session.invite(member.name()).await?);
    }
    let report = session.publish("welcome, both of you").await?.await?;
    println!("the welcome reached {} members", report.delivered.len());

    session.flush().await;
    session.close().await;
    for listener in listeners {
        listener.await?;
    }
    Ok(())
}

async fn connect(name: &str) -> Result<Client, Box<dyn std::error::Error>> {
    Ok(Client::builder(name.parse()?).shared_secret(SECRET)?.connect(NODE).await?)
}

async fn take_part(client: Client) {
    let Some(session) = client.listen_for_session().await else { return };
    if let Err(error) = session.publish("hello").await {
        eprintln!("{}: {error}", client.name());
    }
    show(&client, &session).await;
}

async fn show(client: &Client, session: &Session) {
    while let Some(event) = session.next_event().await {
        let who = client.name().readable();
        match event {
            SessionEvent::Message(message) => {
                let text = String::from_utf8_lossy(&message.payload);
                println!("{who} heard {}: {text}", message.source.readable());
            }
            SessionEvent::Participant { name, change } => println!("{who}: {name} {change:?}"),
            SessionEvent::MessageLost { source, count } => {
                println!("{who} missed {count} of {source}");
            }
            SessionEvent::Closed { reason } => println!("{who} is out: {reason:?}"),
        }
    }
}

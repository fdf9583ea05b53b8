//! `slim-node policy`: what a policy says, and `slim-node schema`: what can stand in a
//! file; without a node.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use slim_node::{Action, Policy, Principal};
use slim_proto::Name;

use crate::{FAILED, Failure, USAGE, file};

/// Instead of running a node.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what a policy allows
    #[command(subcommand, arg_required_else_help = true)]
    Policy(PolicyCommand),
    /// Print the JSON schema of a file, for editors
    Schema {
        /// Which file
        #[arg(value_enum, default_value_t)]
        file: SchemaFile,
        /// Describe the keys of both files in Markdown instead
        #[arg(long, conflicts_with = "file")]
        markdown: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum SchemaFile {
    /// What --config reads
    #[default]
    Node,
    /// What --policy reads
    Policy,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say whether somebody may subscribe and publish to a name, and by which rule
    ///
    /// Status 0 if all that is asked for is allowed, 1 if not, 2 if the file cannot be used.
    Test {
        /// The policy, YAML
        file: PathBuf,
        /// Who: basic:USER, jwt:SUBJECT, spiffe://DOMAIN/PATH or dns:NAME
        principal: Principal,
        /// ORG/NS/APP, or ORG/NS/APP/ID for one instance
        name: Name,
        /// Who issued the token of jwt:SUBJECT
        #[arg(long, value_name = "URL")]
        issuer: Option<String>,
        /// Ask for this alone
        #[arg(long, value_enum)]
        action: Option<AskedAction>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AskedAction {
    Subscribe,
    Publish,
}

/// Carries a command out.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Policy(command) => test(command),
        Command::Schema { file, markdown } => {
            let text = match (file, markdown) {
                (_, true) => file::manual::markdown(),
                (SchemaFile::Node, false) => format!("{:#}\n", file::schema::node()),
                (SchemaFile::Policy, false) => format!("{:#}\n", file::schema::policy()),
            };
            let written = io::stdout().write_all(text.as_bytes());
            written.map_err(|error| Failure::new(FAILED, error.to_string()))
        }
    }
}

fn test(command: PolicyCommand) -> Result<(), Failure> {
    let PolicyCommand::Test { file, principal, name, issuer, action } = command;
    let principal = match (principal, issuer) {
        (principal, None) => principal,
        (Principal::Jwt { subject, .. }, issuer) => Principal::Jwt { subject, issuer },
        (principal, Some(_)) => {
            return Err(Failure::new(
                USAGE,
                format!("--issuer is for jwt:SUBJECT, not {principal}"),
            ));
        }
    };
    let policy = read_policy(&file)?;
    let actions = match action {
        None => &[Action::Subscribe, Action::Publish][..],
        Some(AskedAction::Subscribe) => &[Action::Subscribe],
        Some(AskedAction::Publish) => &[Action::Publish],
    };
    let mut all = true;
    let mut stdout = io::stdout().lock();
    for action in actions {
        let decision = policy.decide(std::slice::from_ref(&principal), *action, &name.route());
        all &= decision.allowed;
        let may = if decision.allowed { "may" } else { "may not" };
        // If nobody reads it, the status says the same.
        writeln!(stdout, "{principal} {may} {action} {name}: {decision}").ok();
    }
    if all { Ok(()) } else { Err(Failure { status: FAILED, text: String::new() }) }
}

/// The policy in a file.
pub(crate) fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let bad = |reason: String| Failure::new(USAGE, format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    file::policy::parse(&text).map_err(bad)
}

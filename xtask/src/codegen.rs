//! `cargo xtask codegen`: the generated types of slim-proto and slim-link, made from
//! `proto/` with a compiler written in Rust, so that nobody needs `protoc`; and what
//! `slim-node schema` says of its files, as `docs/` has it.

use std::fs;

use anyhow::{Context, bail};

use crate::cargo;

/// Arguments of `codegen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if the committed code differs.
    #[arg(long)]
    check: bool,
}

/// What is generated from what.
struct Generated {
    out: &'static str,
    source: Source,
}

enum Source {
    /// A file of `proto/`.
    Proto { file: &'static str, package: &'static str },
    /// What `slim-node` prints with these arguments.
    Node(&'static [&'static str]),
    /// The same, as the rest of a document, from this line on.
    NodeBelow(&'static str, &'static [&'static str]),
}

const ALL: [Generated; 5] = [
    Generated {
        out: "crates/slim-proto/src/gen/dataplane.proto.v1.rs",
        source: Source::Proto {
            file: "dataplane/v1/data_plane.proto",
            package: "dataplane.proto.v1",
        },
    },
    Generated {
        out: "crates/slim-link/src/gen/grpc.health.v1.rs",
        source: Source::Proto { file: "grpc/health/v1/health.proto", package: "grpc.health.v1" },
    },
    Generated { out: "docs/slim-node.schema.json", source: Source::Node(&["schema"]) },
    Generated { out: "docs/policy.schema.json", source: Source::Node(&["schema", "policy"]) },
    Generated {
        out: "docs/configuration.md",
        source: Source::NodeBelow(
            "<!-- From here on made by `cargo xtask codegen`. -->\n",
            &["schema", "--markdown"],
        ),
    },
];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.check {
        return check();
    }
    for generated in &ALL {
        let path = cargo::root().join(generated.out);
        fs::create_dir_all(path.parent().context("no parent folder")?)?;
        fs::write(&path, generated.text()?)
            .with_context(|| format!("writing {}", generated.out))?;
    }
    Ok(())
}

/// Whether what is committed is what would be generated.
///
/// # Errors
/// If it is not, or cannot be generated.
pub(crate) fn check() -> anyhow::Result<()> {
    for generated in &ALL {
        if generated.committed() != generated.text()? {
            bail!("{} has changed: run `cargo xtask codegen` and commit it", generated.out);
        }
    }
    Ok(())
}

impl Generated {
    fn committed(&self) -> String {
        fs::read_to_string(cargo::root().join(self.out)).unwrap_or_default()
    }

    fn text(&self) -> anyhow::Result<String> {
        match self.source {
            Source::Proto { file, package } => {
                types(file, package).with_context(|| format!("compiling {file}"))
            }
            Source::Node(args) => node(args),
            Source::NodeBelow(line, args) => {
                let committed = self.committed();
                let (above, _) = committed
                    .split_once(line)
                    .with_context(|| format!("{} has no line {line:?}", self.out))?;
                Ok(format!("{above}{line}\n{}", node(args)?))
            }
        }
    }
}

/// What the program prints.
fn node(args: &[&str]) -> anyhow::Result<String> {
    let run = ["run", "--locked", "--quiet", "--bin", "slim-node", "--"];
    cargo::output(&mut cargo::command(&[&run, args].concat()))
}

/// The types of a package.
fn types(file: &str, package: &str) -> anyhow::Result<String> {
    let descriptors = protox::compile([file], [cargo::root().join("proto")])?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]);
    let module = prost_build::Module::from_protobuf_package_name(package);
    let requests = descriptors.file.into_iter().map(|file| (module.clone(), file)).collect();
    config
        .generate(requests)
        .context("generating Rust")?
        .remove(&module)
        .context("the generator gave no module")
}

//! `cargo xtask codegen`: the generated types of slim-proto and slim-link, made from
//! `proto/` with a compiler written in Rust, so that nobody needs `protoc`.

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
    proto: &'static str,
    package: &'static str,
    out: &'static str,
}

const ALL: [Generated; 2] = [
    Generated {
        proto: "dataplane/v1/data_plane.proto",
        package: "dataplane.proto.v1",
        out: "crates/slim-proto/src/gen/dataplane.proto.v1.rs",
    },
    Generated {
        proto: "grpc/health/v1/health.proto",
        package: "grpc.health.v1",
        out: "crates/slim-link/src/gen/grpc.health.v1.rs",
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

/// Whether the committed code is what `proto/` gives.
///
/// # Errors
/// If it is not, or `proto/` does not compile.
pub(crate) fn check() -> anyhow::Result<()> {
    for generated in &ALL {
        let out = generated.out;
        let committed = fs::read_to_string(cargo::root().join(out)).unwrap_or_default();
        if committed != generated.text()? {
            bail!("{out} is not what proto/ gives: run `cargo xtask codegen` and commit it");
        }
    }
    Ok(())
}

impl Generated {
    fn text(&self) -> anyhow::Result<String> {
        let descriptors = protox::compile([self.proto], [cargo::root().join("proto")])
            .with_context(|| format!("compiling {}", self.proto))?;
        let mut config = prost_build::Config::new();
        config.bytes(["."]).btree_map(["."]);
        let module = prost_build::Module::from_protobuf_package_name(self.package);
        let requests = descriptors.file.into_iter().map(|file| (module.clone(), file)).collect();
        config
            .generate(requests)
            .context("generating Rust")?
            .remove(&module)
            .context("the generator gave no module")
    }
}

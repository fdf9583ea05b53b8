//! `cargo xtask codegen`: the generated types of slim-proto, made from `proto/`
//! with a compiler written in Rust, so that nobody needs `protoc`.

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

const PROTO: &str = "dataplane/v1/data_plane.proto";
const OUT: &str = "crates/slim-proto/src/gen/dataplane.proto.v1.rs";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.check {
        return check();
    }
    let path = cargo::root().join(OUT);
    fs::create_dir_all(path.parent().context("no parent folder")?)?;
    fs::write(&path, generate()?).with_context(|| format!("writing {OUT}"))
}

/// Whether the committed code is what `proto/` gives.
///
/// # Errors
/// If it is not, or `proto/` does not compile.
pub(crate) fn check() -> anyhow::Result<()> {
    if fs::read_to_string(cargo::root().join(OUT)).unwrap_or_default() != generate()? {
        bail!("{OUT} is not what proto/ gives: run `cargo xtask codegen` and commit it");
    }
    Ok(())
}

fn generate() -> anyhow::Result<String> {
    let descriptors =
        protox::compile([PROTO], [cargo::root().join("proto")]).context("compiling proto/")?;

    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]);
    let module = prost_build::Module::from_protobuf_package_name("dataplane.proto.v1");
    let requests = descriptors.file.into_iter().map(|file| (module.clone(), file)).collect();
    config
        .generate(requests)
        .context("generating Rust")?
        .remove(&module)
        .context("the generator gave no module")
}

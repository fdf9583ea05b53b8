//! `cargo xtask image`: the container image `slim`, from nothing but the release
//! programs and the libraries that they load. No base image is pulled.
//!
//! The loader and libc go in beside the programs, because a fully static glibc
//! program cannot resolve names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::cargo::{self, Programs};

/// What the image is called.
const TAG: &str = "slim";

/// Libraries that libc loads by itself to resolve names, unless it is new
/// enough to contain them.
const RESOLVERS: [&str; 3] = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"];

/// Why there can be no image.
pub(crate) const NO_ENGINE: &str = "no Docker engine answers to `docker version`";

pub(crate) fn run() -> anyhow::Result<()> {
    ensure!(engine().is_some(), NO_ENGINE);
    build()?;
    println!("image {TAG} is built; docker-compose.yaml uses it");
    Ok(())
}

/// The version of the API of this machine's engine, if there is one.
pub(crate) fn engine() -> Option<String> {
    let mut ask = Command::new("docker");
    ask.args(["version", "--format", "{{.Server.APIVersion}}"]).stderr(Stdio::null());
    let answer = ask.output().ok().filter(|answer| answer.status.success())?;
    String::from_utf8(answer.stdout).ok()
}

/// Builds the image, but for what cargo and the engine remember.
///
/// # Errors
/// If it cannot be built.
pub(crate) fn build() -> anyhow::Result<()> {
    let programs =
        Programs::build(&["--release", "--package", "slim-node", "--package", "slim-cli"])?;
    let context = cargo::root().join("target/image");
    stage(&programs, &context)?;
    let mut build = Command::new("docker");
    build
        .args(["build", "--tag", TAG, "--file"])
        .arg(cargo::root().join("Dockerfile"))
        .arg(&context);
    cargo::run(&mut build)
}

/// Fills `context` with the file tree of the image.
fn stage(programs: &Programs, context: &Path) -> anyhow::Result<()> {
    if context.exists() {
        fs::remove_dir_all(context).context("emptying the image's folder")?;
    }
    for program in [&programs.node, &programs.slim] {
        let name = program.file_name().context("a program without a name")?;
        copy(program, &context.join("usr/bin").join(name))?;
        for library in libraries(program)? {
            copy(&library, &inside(context, &library))?;
            for resolver in RESOLVERS.map(|name| library.with_file_name(name)) {
                if resolver.exists() {
                    copy(&resolver, &inside(context, &resolver))?;
                }
            }
        }
    }
    fs::create_dir_all(context.join("etc"))?;
    fs::write(context.join("etc/nsswitch.conf"), "hosts: files dns\n")
        .context("writing nsswitch.conf")
}

/// The place in the image of a file that keeps its place.
fn inside(context: &Path, file: &Path) -> PathBuf {
    context.join(file.strip_prefix("/").unwrap_or(file))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to.parent().context("no parent folder")?)?;
    fs::copy(from, to)
        .map(|_| ())
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

/// What a program needs to be loaded, the loader included.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listing = cargo::output(Command::new("ldd").arg(program))?;
    let found = library_paths(&listing);
    ensure!(!found.is_empty(), "{} needs no libraries, says ldd: {listing}", program.display());
    Ok(found)
}

fn library_paths(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_gives_the_libraries_and_the_loader() {
        let listing = "\tlinux-vdso.so.1 (0x00007f53a5013000)\n\
             \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f53a4daa000)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f53a5015000)\n";
        let found = library_paths(listing);
        assert_eq!(
            found,
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert_eq!(
            inside(Path::new("/image"), &found[1]),
            Path::new("/image/lib64/ld-linux-x86-64.so.2")
        );
    }
}

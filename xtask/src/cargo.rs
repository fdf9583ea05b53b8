//! Running cargo, and finding what it built.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

/// The folder of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// The cargo that started us, in the folder of the workspace.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// Runs a command to its end.
///
/// # Errors
/// If it cannot be started or ends with a status other than 0.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// What a command prints on stdout.
///
/// # Errors
/// As [`run`], or if it prints something else than text.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{} ended with {}", shown(command), output.status);
    }
    String::from_utf8(output.stdout).context("output that is not UTF-8")
}

/// The folder that everything is built in.
///
/// # Errors
/// If cargo does not tell.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    let args = ["metadata", "--locked", "--no-deps", "--format-version=1"];
    let metadata = output(&mut command(&args))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo's metadata")?;
    let folder = metadata["target_directory"].as_str().context("no target directory")?;
    Ok(folder.into())
}

/// Keeps a folder to ourselves as long as the file is open. Makes it if need be.
///
/// # Errors
/// If another run has it.
pub(crate) fn lock(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.try_lock().with_context(|| format!("another run uses {}", folder.display()))?;
    Ok(file)
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program
        .file_name()
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The two programs that users meet.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// `slim-node`
    pub(crate) node: PathBuf,
    /// `slim`
    pub(crate) slim: PathBuf,
}

impl Programs {
    /// Those in `folder`.
    ///
    /// # Errors
    /// If one of them is not there.
    pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name).with_extension(env::consts::EXE_EXTENSION);
            path.canonicalize().with_context(|| format!("no program {}", path.display()))
        };
        Ok(Self { node: find("slim-node")?, slim: find("slim")? })
    }

    /// A program that is built together with them, for tests only.
    pub(crate) fn helper(&self, name: &str) -> PathBuf {
        self.node.with_file_name(name).with_extension(env::consts::EXE_EXTENSION)
    }

    /// Builds with `cargo build` and the given further arguments.
    ///
    /// # Errors
    /// If the build fails or gives no such programs.
    pub(crate) fn build(args: &[&str]) -> anyhow::Result<Self> {
        let [node, slim] = build(args, ["slim-node", "slim"])?;
        Ok(Self { node, slim })
    }
}

/// Builds with `cargo build` and the given further arguments, and tells where the
/// programs of these names are.
///
/// # Errors
/// If the build fails or gives no such programs.
pub(crate) fn build<const N: usize>(
    args: &[&str],
    names: [&str; N],
) -> anyhow::Result<[PathBuf; N]> {
    let mut build = command(&["build", "--locked", "--message-format=json-render-diagnostics"]);
    let messages = output(build.args(args))?;
    let mut programs = names.map(|_| PathBuf::new());
    for (program, name) in programs.iter_mut().zip(names) {
        *program = messages
            .lines()
            .find_map(|line| executable(line, name))
            .with_context(|| format!("the build gave no program {name}"))?;
    }
    Ok(programs)
}

/// Where the program `name` is, if this line of `--message-format=json` tells.
fn executable(line: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let target = &message["target"];
    let is_it = message["reason"] == "compiler-artifact"
        && target["name"] == name
        && target["kind"][0] == "bin"
        && message["profile"]["test"] == false;
    message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_and_its_test_is_not() {
        let line = |kind: &str, test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "target": {"name": "slim", "kind": [kind]},
                "profile": {"test": test},
                "executable": "/target/debug/slim",
            })
            .to_string()
        };
        assert_eq!(executable(&line("bin", false), "slim"), Some("/target/debug/slim".into()));
        assert_eq!(executable(&line("bin", true), "slim"), None);
        assert_eq!(executable(&line("test", false), "slim"), None);
        assert_eq!(executable(&line("bin", false), "slim-node"), None);
        assert_eq!(executable("Compiling slim", "slim"), None);
    }
}

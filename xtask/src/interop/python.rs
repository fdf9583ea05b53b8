//! The reference: a Python wheel in a virtual environment of our own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::cargo;

/// The wheel that everything here was tried with.
const PACKAGE: &str = "slim-bindings";
const VERSION: &str = "3.3.8";

/// The lowest Python that the wheel is made for.
const MIN_PYTHON: (u32, u32) = (3, 10);

/// The Python of a virtual environment in `folder` that has the wheel. Made if it
/// is not there yet, or has another version of the wheel.
///
/// # Errors
/// If `python` is missing or too old, or the wheel cannot be installed.
pub(crate) fn environment(python: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let inside = folder.join("bin").join("python");
    if installed(&inside).as_deref() == Some(VERSION) {
        return Ok(inside);
    }
    check_version(python)?;
    println!("installing {PACKAGE} {VERSION} in {}", folder.display());
    let mut create = Command::new(python);
    cargo::run(create.args(["-m", "venv", "--clear"]).arg(folder)).context(
        "a Python with the module venv is needed (Debian: apt-get install python3-venv)",
    )?;
    let mut install = Command::new(&inside);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    cargo::run(install.arg(format!("{PACKAGE}=={VERSION}")))?;
    match installed(&inside) {
        Some(version) if version == VERSION => Ok(inside),
        other => bail!("{PACKAGE} {VERSION} was installed, but Python finds {other:?}"),
    }
}

/// The name and the version of the wheel, for people.
pub(crate) fn wheel() -> String {
    format!("{PACKAGE} {VERSION}")
}

/// The version of the wheel that this Python has.
fn installed(python: &Path) -> Option<String> {
    let code = format!(
        "import importlib.metadata, slim_bindings; print(importlib.metadata.version({PACKAGE:?}))"
    );
    let output = Command::new(python).args(["-c", &code]).stderr(Stdio::null()).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    output.status.success().then_some(version)
}

fn check_version(python: &str) -> anyhow::Result<()> {
    let (major, minor) = MIN_PYTHON;
    let needed = format!("Python {major}.{minor} or newer is needed; --python names another one");
    let code = "import sys; print(*sys.version_info[:2])";
    let printed = cargo::output(Command::new(python).args(["-c", code]))
        .with_context(|| format!("{python} does not run. {needed}"))?;
    match version(&printed) {
        Some(found) if found >= MIN_PYTHON => Ok(()),
        Some((major, minor)) => bail!("{python} is Python {major}.{minor}. {needed}"),
        None => bail!("{python} says that its version is {printed:?}. {needed}"),
    }
}

fn version(printed: &str) -> Option<(u32, u32)> {
    let (major, minor) = printed.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("3 11\n"), Some((3, 11)));
        assert!(version("3 9").unwrap() < MIN_PYTHON);
        assert!(version("3 10").unwrap() >= MIN_PYTHON);
        assert_eq!(version("Python 3"), None);
    }

    #[test]
    fn a_python_that_is_not_there_is_told() {
        let error = environment("no-such-python", Path::new("/no/such/folder")).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no-such-python") && text.contains("3.10 or newer"), "{text}");
    }
}

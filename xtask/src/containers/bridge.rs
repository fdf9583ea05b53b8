//! A way to an engine that is older than its client.
//!
//! A client names the version of the API that it speaks in the path of each request, and
//! an engine refuses one that is newer than its own, also the question which one that
//! is. The client library of the tests always names its newest. So it is given a socket
//! of ours, where a version that is too new becomes the engine's; everything else is
//! passed on as it is. The library opens a connection for each request.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs, process, thread};

use anyhow::{Context, ensure};

/// Major and minor number.
type Version = (u32, u32);

/// A socket in front of the engine's, gone when dropped.
#[derive(Debug)]
pub(super) struct Bridge {
    socket: PathBuf,
}

impl Bridge {
    /// Opens one to the engine at a socket, which speaks `version`.
    ///
    /// # Errors
    /// If that is no version, or there can be no socket.
    pub(super) fn open(engine: PathBuf, version: &str) -> anyhow::Result<Self> {
        let version = read_version(version).with_context(|| format!("version {version:?}"))?;
        ensure!(engine.exists(), "no engine at {}", engine.display());
        let socket = env::temp_dir().join(format!("slim-engine-{}.sock", process::id()));
        // What is there is left of somebody who had the same number.
        fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot listen at {}", socket.display()))?;
        let engine: Arc<Path> = engine.into();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let engine = Arc::clone(&engine);
                // An error ends both connections, which the client sees.
                thread::spawn(move || carry(client, &engine, version).ok());
            }
        });
        Ok(Self { socket })
    }

    /// What `DOCKER_HOST` is to be.
    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Somebody else may have removed it, which is all we want.
        fs::remove_file(&self.socket).ok();
    }
}

/// Carries one request, its answer, and whatever they say afterwards.
fn carry(client: UnixStream, engine: &Path, version: Version) -> io::Result<()> {
    let engine = UnixStream::connect(engine)?;
    let (mut to_client, mut to_engine) = (client.try_clone()?, engine.try_clone()?);
    let mut request = BufReader::new(client);
    let mut line = String::new();
    request.read_line(&mut line)?;
    to_engine.write_all(lowered(&line, version).as_bytes())?;
    thread::spawn(move || {
        // Either end may go first.
        io::copy(&mut request, &mut to_engine).ok();
        to_engine.shutdown(Shutdown::Write).ok();
    });
    let mut answer = engine;
    io::copy(&mut answer, &mut to_client)?;
    to_client.shutdown(Shutdown::Both)
}

/// `1.41`
fn read_version(text: &str) -> Option<Version> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The first line of a request, with a version that is not newer than `newest`.
fn lowered(line: &str, newest: Version) -> String {
    let versions = line.split_once(" /v").and_then(|(method, rest)| {
        let (version, path) = rest.split_once('/')?;
        Some((method, read_version(version)?, path))
    });
    match versions {
        Some((method, version, path)) if version > newest => {
            format!("{method} /v{}.{}/{path}", newest.0, newest.1)
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn only_a_version_that_is_too_new_is_lowered() {
        let get = |version: &str| format!("GET /v{version}/containers/json HTTP/1.1\r\n");
        assert_eq!(lowered(&get("1.53"), (1, 41)), get("1.41"));
        assert_eq!(lowered(&get("2.0"), (1, 41)), get("1.41"));
        assert_eq!(lowered(&get("1.9"), (1, 41)), get("1.9"));
        for other in ["GET /_ping HTTP/1.1\r\n", "GET /volumes/a HTTP/1.1\r\n", ""] {
            assert_eq!(lowered(other, (1, 41)), other);
        }
    }

    #[test]
    fn what_follows_the_first_line_is_carried_both_ways() {
        let socket = env::temp_dir().join(format!("slim-bridge-test-{}.sock", process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        let bridge = Bridge::open(socket.clone(), "1.41\n").unwrap();
        let mut client = UnixStream::connect(&bridge.socket).unwrap();
        client.write_all(b"POST /v1.53/attach HTTP/1.1\r\n\r\nhello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut engine, _) = listener.accept().unwrap();
        let mut heard = String::new();
        engine.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "POST /v1.41/attach HTTP/1.1\r\n\r\nhello");
        engine.write_all(b"hi").unwrap();
        drop(engine);
        heard.clear();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hi");
        fs::remove_file(socket).unwrap();
    }
}

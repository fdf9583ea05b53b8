//! Links over sockets in the file system.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use slim_link::{
    AcceptConfig, AcceptedLink, DialConfig, DialError, Endpoint, KeyPair, ListenConfig,
    ListenError, Listener, PeerAddr, Pem, ServerTls, Target, dial, serve,
};
use support::{header, publish, soon};
use tokio::sync::{mpsc, oneshot};

/// A path that nothing has yet; what is there goes with this.
struct Path(PathBuf);

impl Path {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // The name of a socket must be short.
        Self(std::env::temp_dir().join(format!("slim-{}-{number}.sock", std::process::id())))
    }

    fn endpoint(&self) -> ListenConfig {
        Endpoint::Unix(self.0.clone()).into()
    }

    fn target(&self) -> Target {
        format!("unix://{}", self.0.display()).parse().unwrap()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

#[tokio::test]
async fn a_link_over_a_unix_socket_carries_messages() {
    let path = Path::new();
    let listener = Listener::bind(&path.endpoint()).unwrap();
    assert_eq!(listener.endpoint().to_string(), format!("unix://{}", path.0.display()));
    let (links, mut accepted) = mpsc::unbounded_channel::<AcceptedLink>();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(
        vec![listener],
        AcceptConfig::default(),
        move |link| {
            links.send(link).ok();
            std::future::pending()
        },
        async { stopped.await.unwrap_or(()) },
    ));
    let link = soon(dial(&path.target(), &DialConfig::default())).await.unwrap();
    assert_eq!(link.info().peer_addr, PeerAddr::Unix(path.0.clone()));
    let mut accepted = soon(accepted.recv()).await.unwrap();
    assert_eq!(accepted.info.peer_addr, PeerAddr::Unix(path.0.clone()));
    let (sender, _receiver) = link.split();
    sender.send(&publish(header(), 1, 100_000)).await.unwrap();
    let mut frames = Vec::new();
    soon(accepted.frames.read_batch(&mut frames)).await.unwrap();
    assert_eq!(frames.len(), 1);

    // Who stops is not to be found any more, before anything else ends.
    drop(stop);
    soon(async {
        while path.0.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    serving.abort();
}

#[tokio::test]
async fn what_a_dead_process_left_over_is_replaced() {
    let path = Path::new();
    drop(UnixListener::bind(&path.0).unwrap());
    assert!(path.0.exists(), "as after a kill");
    let error = soon(dial(&path.target(), &DialConfig::default())).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    let _listener = Listener::bind(&path.endpoint()).unwrap();
    let is_in_use = |error| matches!(error, ListenError::Socket(error) if error.kind() == io::ErrorKind::AddrInUse);
    assert!(is_in_use(Listener::bind(&path.endpoint()).unwrap_err()));
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let path = Path::new();
    fs::write(&path.0, "precious").unwrap();
    let error = Listener::bind(&path.endpoint()).unwrap_err();
    assert!(matches!(error, ListenError::NoSocket), "{error:?}");
    assert_eq!(fs::read_to_string(&path.0).unwrap(), "precious");
}

#[tokio::test]
async fn another_ones_socket_is_not_removed() {
    let path = Path::new();
    let listener = Listener::bind(&path.endpoint()).unwrap();
    fs::remove_file(&path.0).unwrap();
    let _other = UnixListener::bind(&path.0).unwrap();
    drop(listener);
    assert!(path.0.exists());
}

#[tokio::test]
async fn who_may_not_write_to_the_socket_is_not_let_in() {
    let path = Path::new();
    let _listener = Listener::bind(&path.endpoint()).unwrap();
    fs::set_permissions(&path.0, fs::Permissions::from_mode(0o000)).unwrap();
    // The administrator may, whatever the file says.
    if fs::metadata(&path.0).unwrap().uid() == 0 {
        eprintln!("SKIPPED: as root, every file may be written to");
        return;
    }
    match soon(dial(&path.target(), &DialConfig::default())).await.unwrap_err() {
        DialError::Unreachable(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_unix_socket_has_no_tls() {
    let made = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let identity = KeyPair {
        certificate: Pem::Text(made.cert.pem()),
        key: Pem::Text(made.signing_key.serialize_pem()),
    };
    let path = Path::new();
    let tls = Some(ServerTls::new(identity));
    let error = Listener::bind(&ListenConfig { tls, ..path.endpoint() }).unwrap_err();
    assert!(matches!(error, ListenError::TlsOnUnix), "{error:?}");
    assert!(!path.0.exists());
}

//! The program: what it prints, how it ends, what it never logs.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{End, RawConnection, RawStream, name, ok, publish, subscription, text, within};
use slim_link::{Authorization, ClientTls, DialConfig, DialError, Link, Pem, TlsError, dial};
use slim_proto::{Header, Message, UNICAST};

const LIMIT: Duration = Duration::from_secs(20);

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slim-node"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end, which must come by itself.
fn run(args: &[&str]) -> Output {
    let (sender, receiver) = mpsc::channel();
    let child = program(args).spawn().unwrap();
    let pid = child.id();
    thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    receiver.recv_timeout(LIMIT).unwrap_or_else(|_| {
        kill("KILL", pid);
        panic!("{args:?} does not end");
    })
}

/// Runs the program, which fails: its status and the line that says why.
fn fails(args: &[&str]) -> (Option<i32>, String) {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.stdout, b"", "{stderr}");
    (output.status.code(), stderr)
}

fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

/// A running program; killed when dropped.
struct Running {
    child: Child,
    addrs: Vec<SocketAddr>,
    /// Lines of its log.
    log: mpsc::Receiver<String>,
}

impl Running {
    fn start(args: &[&str], listeners: usize) -> Self {
        let mut child = program(args).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let log = lines(child.stderr.take().unwrap());
        let addrs = stdout
            .lines()
            .take(listeners)
            .map(|line| line.unwrap().strip_prefix("listening on ").unwrap().parse().unwrap())
            .collect();
        Self { child, addrs, log }
    }

    fn signal(&self, name: &str) {
        kill(name, self.child.id());
    }

    /// Waits for a line of the log.
    fn logs(&self, wanted: &str) {
        let start = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(start.elapsed());
            if self.log.recv_timeout(left).expect("the line appears").contains(wanted) {
                return;
            }
        }
    }

    /// Waits for the end: the exit status, and the rest of the log.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        // The log ends with the process.
        let mut log = Vec::new();
        let start = Instant::now();
        loop {
            match self.log.recv_timeout(LIMIT.saturating_sub(start.elapsed())) {
                Ok(line) => log.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("does not end: {log:?}"),
            }
        }
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn lines(stderr: ChildStderr) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines() {
            // Nobody listens once the test is over.
            sender.send(line.unwrap()).ok();
        }
    });
    receiver
}

/// A configuration file that goes when dropped.
struct ConfigFile(PathBuf);

impl ConfigFile {
    fn new(test: &str, text: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("slim-node-{test}-{}.yaml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

const ANY_PORT: &str = "127.0.0.1:0";

#[tokio::test]
async fn each_listener_is_announced_and_served() {
    let running = Running::start(&["--listen", ANY_PORT, "--listen", "[::1]:0"], 2);
    for addr in &running.addrs {
        assert_ne!(addr.port(), 0);
        RawStream::start(*addr).await;
    }
}

#[tokio::test]
async fn an_admin_address_of_an_option_or_the_file_is_announced() {
    let text = format!(
        "runtime: {{ admin: '{ANY_PORT}' }}\nservices: {{ slim/0: {{ dataplane: {{ servers: [ {{ \
         endpoint: '{ANY_PORT}', tls: {{ insecure: true }} }} ] }} }} }}"
    );
    let file = ConfigFile::new("admin", &text);
    for args in [&["--config", file.path()][..], &["--listen", ANY_PORT, "--admin", ANY_PORT]] {
        let mut child = program(args).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let line = stdout.lines().nth(1).unwrap().unwrap();
        let addr: SocketAddr = line.strip_prefix("admin on http://").unwrap().parse().unwrap();
        let tcp = tokio::net::TcpStream::connect(addr).await;
        child.kill().unwrap();
        child.wait().unwrap();
        tcp.unwrap();
    }
    let (status, stderr) = fails(&["--listen", ANY_PORT, "--admin", "localhost:1"]);
    assert_eq!(status, Some(2), "{stderr}");
}

#[test]
fn the_program_asks_a_node_for_its_health() {
    let mut child = program(&["--listen", ANY_PORT, "--admin", ANY_PORT]).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let line = stdout.lines().nth(1).unwrap().unwrap();
    let addr = line.strip_prefix("admin on http://").unwrap();
    let good = run(&["--health", addr]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((good.status.code(), good.stdout), (Some(0), b"ready\n".to_vec()));
    let (status, stderr) = fails(&["--health", addr]);
    assert_eq!(status, Some(1));
    assert!(stderr.starts_with(&format!("slim-node: no answer from {addr}: ")), "{stderr}");
    // Another server is no node that is ready.
    let other = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let addr = other.local_addr().unwrap().to_string();
    let answering = thread::spawn(move || {
        let (mut tcp, _) = other.accept().unwrap();
        let head = BufReader::new(tcp.try_clone().unwrap()).lines();
        assert!(head.take_while(|line| !line.as_ref().unwrap().is_empty()).count() > 1);
        std::io::Write::write_all(&mut tcp, b"HTTP/1.1 503 Busy\r\n\r\ndraining\n").unwrap();
    });
    let (status, stderr) = fails(&["--health", &addr]);
    answering.join().unwrap();
    let expected = format!("slim-node: {addr} answers \"HTTP/1.1 503 Busy\": draining\n");
    assert_eq!((status, stderr), (Some(1), expected));
}

/// All limits can be others while links are there.
#[tokio::test]
async fn sighup_changes_limits_and_ends_no_link() {
    let text = |subscriptions: usize, connections: usize| {
        format!(
            "services: {{ slim/0: {{ dataplane: {{ servers: [ {{ endpoint: '{ANY_PORT}', tls: \
             {{ insecure: true }} }} ], limits: {{ subscriptions_per_link: {subscriptions}, \
             connections: {connections} }} }} }} }}"
        )
    };
    let file = ConfigFile::new("limits", &text(1, 1));
    let running = Running::start(&["--config", file.path()], 1);
    let mut first = RawStream::start(running.addrs[0]).await;
    let subscribe = async |stream: &mut RawStream, id| {
        stream.send_signed(&Message::Subscribe(subscription(&name("bob", id), 5))).await;
        stream.next().await
    };
    assert_eq!(subscribe(&mut first, 1).await, Some(Message::SubscriptionAck(ok(5))));
    let Some(Message::SubscriptionAck(refused)) = subscribe(&mut first, 2).await else { panic!() };
    refused.result.unwrap_err();

    std::fs::write(file.path(), text(2, 2)).unwrap();
    running.signal("HUP");
    running.logs("limits as in the file");
    assert_eq!(subscribe(&mut first, 2).await, Some(Message::SubscriptionAck(ok(5))));
    let mut second = RawStream::start(running.addrs[0]).await;

    // Fewer again: who is there stays.
    std::fs::write(file.path(), text(1, 1)).unwrap();
    running.signal("HUP");
    running.logs("limits as in the file");
    assert_eq!(subscribe(&mut second, 3).await, Some(Message::SubscriptionAck(ok(5))));
    let Some(Message::SubscriptionAck(refused)) = subscribe(&mut first, 3).await else { panic!() };
    refused.result.unwrap_err();
}

#[test]
fn a_taken_port_is_one_line_and_status_1() {
    let running = Running::start(&["--listen", ANY_PORT], 1);
    let addr = running.addrs[0].to_string();
    let (status, stderr) = fails(&["--listen", &addr]);
    assert_eq!(status, Some(1));
    assert!(stderr.starts_with(&format!("slim-node: cannot listen on {addr}: ")), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn wrong_options_are_status_2() {
    for args in [
        &["--no-such-option"][..],
        &["--listen", "nowhere"],
        &["--log", "loud"],
        &["--log-format", "xml"],
    ] {
        assert_eq!(fails(args).0, Some(2), "{args:?}");
    }
}

#[test]
fn a_bad_file_is_named_with_the_key_and_status_2() {
    let check = |test, text: &str, expected: &str| {
        let file = ConfigFile::new(test, text);
        let (status, stderr) = fails(&["--config", file.path()]);
        assert_eq!(status, Some(2), "{stderr}");
        assert_eq!(stderr, format!("slim-node: {}: {expected}\n", file.path()));
    };
    check(
        "key",
        "services: { slim/0: { nodeid: x } }",
        "services.slim/0.nodeid: unknown key, did you mean node_id?",
    );
    check("empty", "services: { slim/0: {} }", "no dataplane.servers to listen for");
    check(
        "env",
        "services: { slim/0: { node_id: '${env:NO_SUCH_VARIABLE_HERE}' } }",
        "services.slim/0.node_id: environment variable NO_SUCH_VARIABLE_HERE: environment variable not found",
    );
    let (status, stderr) = fails(&["--config", "/no/such/file.yaml"]);
    assert_eq!((status, stderr.lines().count()), (Some(2), 1));
    assert!(stderr.contains("/no/such/file.yaml"), "{stderr}");
}

#[tokio::test]
async fn a_file_is_used_and_options_win() {
    let text = "
tracing: { log_level: debug }
services:
  slim/0:
    node_id: from-the-file
    dataplane:
      servers: [ { endpoint: '127.0.0.1:1', tls: { insecure: true }, read_buffer_size: 7 } ]
";
    let file = ConfigFile::new("good", text);
    let running = Running::start(&["--config", file.path(), "--listen", ANY_PORT], 1);
    running.logs("services.slim/0.dataplane.servers[0].read_buffer_size");
    let mut stream = RawConnection::open(running.addrs[0]).await.stream().await;
    let reply = stream.negotiate(slim_proto::ConnectionType::Edge).await;
    assert_eq!(reply.node_id, "from-the-file");
}

/// Whoever watches the node does not have to be there for it to work.
#[tokio::test]
async fn a_collector_that_is_away_is_told_and_costs_nothing() {
    let text = "
tracing:
  opentelemetry: { enabled: true, grpc: { endpoint: 'http://127.0.0.1:1' }, metrics_interval_secs: 1 }
services:
  slim/0: { dataplane: { servers: [ { endpoint: '127.0.0.1:0', tls: { insecure: true } } ] } }
";
    let file = ConfigFile::new("collector", text);
    let running = Running::start(&["--config", file.path()], 1);
    running.logs("PeriodicReader.ExportError");
    let mut stream = RawConnection::open(running.addrs[0]).await.stream().await;
    stream.negotiate(slim_proto::ConnectionType::Edge).await;
    running.signal("TERM");
    let (status, log) = running.end();
    assert_eq!(status, Some(0), "{log:?}");

    for (other, expected) in [
        ("headers: { 'a b': secret }, endpoint: 'http://127", "header \"a b\": no name of"),
        ("endpoint: '127", "is neither http://host:port nor https://host:port"),
    ] {
        let text = text.replace("endpoint: 'http://127", other);
        let file = ConfigFile::new("collector-bad", &text);
        for option in ["--check", "--config"] {
            let (status, stderr) = fails(&[option, file.path()]);
            assert_eq!(status, Some(2));
            assert!(stderr.contains(expected) && !stderr.contains("secret"), "{stderr}");
        }
    }
}

/// A certificate for this machine and its key, in files that go when dropped.
fn certificate(test: &str) -> [ConfigFile; 2] {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = ConfigFile::new(&format!("{test}-key"), &made.signing_key.serialize_pem());
    [ConfigFile::new(&format!("{test}-cert"), &made.cert.pem()), key]
}

async fn dial_with(addr: SocketAddr, ca: &ConfigFile) -> Result<Link, DialError> {
    let tls = ClientTls { ca: Some(Pem::File(ca.path().into())), ..ClientTls::default() };
    let config = DialConfig { tls, ..DialConfig::default() };
    within(dial(&format!("https://{addr}").parse().unwrap(), &config)).await
}

#[tokio::test]
async fn tls_may_be_asked_for_by_options_and_in_the_file() {
    let [certificate, key] = certificate("tls");
    let options = ["--tls-cert", certificate.path(), "--tls-key", key.path()];
    let running = Running::start(&[&["--listen", ANY_PORT][..], &options].concat(), 1);
    dial_with(running.addrs[0], &certificate).await.unwrap();

    let text = format!(
        "services: {{ slim/0: {{ dataplane: {{ servers: [ {{ endpoint: '{ANY_PORT}', \
         tls: {{ source: {{ type: file, cert: '{}', key: '{}' }} }} }} ] }} }} }}",
        certificate.path(),
        key.path()
    );
    let file = ConfigFile::new("tls", &text);
    let running = Running::start(&["--config", file.path()], 1);
    dial_with(running.addrs[0], &certificate).await.unwrap();

    let (status, stderr) = fails(&[&["--config", file.path()][..], &options].concat());
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("--tls-cert is for addresses of --listen"), "{stderr}");
}

#[tokio::test]
async fn a_node_that_knows_its_clients_asks_for_their_certificates() {
    let [certificate, key] = certificate("mtls");
    let paths = [certificate.path(), key.path(), certificate.path()];
    let [cert, key, ca] = paths;
    let options = ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca];
    let running = Running::start(&[&["--listen", ANY_PORT][..], &options].concat(), 1);
    let error = dial_with(running.addrs[0], &certificate).await.unwrap_err();
    assert!(matches!(error, DialError::Tls(TlsError::WantsCertificate)), "{error:?}");
    running.logs("it shows no certificate");
}

async fn dial_showing(addr: SocketAddr, header: &str) -> Result<Link, DialError> {
    let header = header.to_owned();
    let authorization = Some(Authorization::new(move || Ok(header.clone())));
    let config = DialConfig { authorization, ..DialConfig::default() };
    within(dial(&addr.to_string().parse().unwrap(), &config)).await
}

/// A file whose only address wants to know who comes.
fn with_auth(test: &str, auth: &str) -> ConfigFile {
    let text = format!(
        "services: {{ slim/0: {{ dataplane: {{ servers: [ {{ endpoint: '{ANY_PORT}', \
         tls: {{ insecure: true }}, auth: {{ {auth} }} }} ] }} }} }}"
    );
    ConfigFile::new(test, &text)
}

#[tokio::test]
async fn a_node_lets_in_whom_its_file_knows() {
    let password = ConfigFile::new("password", "wonderland\n");
    let auth = format!("type: basic, username: alice, password: '${{file:{}}}'", password.path());
    let file = with_auth("basic", &auth);
    let running = Running::start(&["--config", file.path(), "--log", "trace"], 1);
    dial_showing(running.addrs[0], &slim_auth::basic("alice", "wonderland")).await.unwrap();
    let error = dial_showing(running.addrs[0], &slim_auth::basic("alice", "w0nderland")).await;
    let error = error.unwrap_err();
    let why = "unknown user or wrong password";
    assert!(matches!(&error, DialError::Unauthenticated(said) if said == why), "{error:?}");
    running.signal("TERM");
    let (status, log) = running.end();
    assert_eq!(status, Some(0));
    assert!(log.iter().any(|line| line.contains("not authenticated") && line.contains(why)));
    assert!(log.iter().any(|line| line.contains("unauthenticated_links: 1")), "{log:?}");
    let shown = ["wonderland", "w0nderland", &slim_auth::basic("alice", "w0nderland")[6..]];
    for line in &log {
        assert!(!shown.iter().any(|secret| line.contains(secret)), "{line}");
    }
}

#[test]
fn what_proves_nothing_is_configuration() {
    let jwt = "type: jwt, key: { type: decoding, format: jwks, key: { file: /no/such/keys } }";
    let file = with_auth("no-keys", jwt);
    for option in ["--check", "--config"] {
        let (status, stderr) = fails(&[option, file.path()]);
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.contains("/no/such/keys: No such file"), "{stderr}");
    }
    // An option must not open what the file closes.
    let file = with_auth("closed", "type: basic, username: a, password: b");
    let (status, stderr) = fails(&["--config", file.path(), "--listen", ANY_PORT]);
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("nothing of that is for addresses of --listen"), "{stderr}");
}

#[test]
fn what_can_stand_in_its_files_is_documented() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (args, document) in [
        (&["schema"][..], "slim-node.schema.json"),
        (&["schema", "policy"], "policy.schema.json"),
        (&["schema", "--markdown"], "configuration.md"),
    ] {
        let documented = std::fs::read_to_string(docs.join(document)).unwrap();
        let output = run(args);
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
        let said = String::from_utf8(output.stdout).unwrap();
        // The manual has prose in front of it.
        assert!(documented.ends_with(&said), "docs/{document}: run `cargo xtask codegen`");
    }
}

const POLICY: &str = "
rules:
  - name: alice
    principals: basic:alice
    subscribe: [ org/ns/alice, org/ns/team ]
    publish: org/ns
  - name: guests
    principals: anyone
    publish: org/ns/reception
";

#[test]
fn a_policy_can_be_asked_without_a_node() {
    let file = ConfigFile::new("asked", POLICY);
    let asks = |args: &[&str]| {
        let output = run(&[&["policy", "test", file.path()], args].concat());
        assert_eq!(output.stderr, b"", "{args:?}");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, said) = asks(&["basic:alice", "org/ns/alice"]);
    assert_eq!(
        said,
        "basic:alice may subscribe to org/ns/alice: rule \"alice\" allows it\n\
         basic:alice may publish to org/ns/alice: rule \"alice\" allows it\n"
    );
    assert_eq!(status, Some(0));
    let (status, said) = asks(&["jwt:bob", "org/ns/alice", "--action", "subscribe"]);
    assert_eq!(
        said,
        "jwt:bob may not subscribe to org/ns/alice: rule \"guests\" is for this principal, and \
         not for the name\n"
    );
    assert_eq!(status, Some(1));
    let (status, said) = asks(&["jwt:bob", "org/ns/reception", "--issuer", "https://i"]);
    assert!(said.contains("jwt:bob of https://i may publish to org/ns/reception"), "{said}");
    assert_eq!(status, Some(1), "it may not subscribe");

    for (args, expected) in [
        (&["/no/such/file", "basic:a", "a/b/c"][..], "/no/such/file: No such file"),
        (&[file.path(), "alice", "a/b/c"], "\"alice\" is no principal: expected basic:USER"),
        (&[file.path(), "basic:a", "a/b"], "\"a/b\" is not a name"),
        (&[file.path(), "basic:a", "a/b/c", "--issuer", "i"], "--issuer is for jwt:SUBJECT"),
    ] {
        let (status, stderr) = fails(&[&["policy", "test"], args].concat());
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[tokio::test]
async fn a_policy_is_in_force_and_loaded_anew_at_sighup() {
    let policy = ConfigFile::new("in-force", POLICY);
    let file = ConfigFile::new(
        "with-policy",
        &format!(
            "services: {{ slim/0: {{ dataplane: {{ policy: '{}', servers: [ {{ endpoint: \
             '{ANY_PORT}', tls: {{ insecure: true }}, auth: {{ type: basic, username: alice, \
             password: wonderland }} }} ] }} }} }}",
            policy.path()
        ),
    );
    let running = Running::start(&["--config", file.path()], 1);
    running.logs("what no rule of the policy allows is denied");
    let shown = slim_auth::basic("alice", "wonderland");
    let link = dial_showing(running.addrs[0], &shown).await.unwrap();
    let (sender, mut receiver) = link.split();
    let mut subscribe = async |app: &str| {
        sender.send(&Message::Subscribe(subscription(&name(app, 1), 7))).await.unwrap();
        within(receiver.recv()).await.unwrap()
    };
    assert_eq!(subscribe("alice").await, Message::SubscriptionAck(ok(7)));
    let Message::SubscriptionAck(ack) = subscribe("bob").await else { panic!("no ack") };
    let reason = "not allowed: basic:alice may not subscribe to this name";
    assert_eq!(ack.result, Err(reason.to_owned()));
    running.logs(
        "denied by the policy principal=\"basic:alice\" what=\"subscribe to\" \
         name=org/ns/bob/00000000-0000-0000-0000-000000000001 rule=rules [\"alice\", \"guests\"]",
    );

    std::fs::write(policy.path(), POLICY.replace("org/ns/alice", "org/ns/al*")).unwrap();
    running.signal("HUP");
    running.logs("the old policy stays");
    std::fs::write(policy.path(), POLICY.replace("org/ns/alice", "org/ns/bob")).unwrap();
    running.signal("HUP");
    // Said by the link, before or after the program says that it has another policy.
    running.logs("subscriptions withdrawn by the new policy");
    assert_eq!(subscribe("bob").await, Message::SubscriptionAck(ok(7)));

    // The file of the node is no good if that of the policy is not.
    std::fs::write(policy.path(), POLICY.replace("publish", "pubish")).unwrap();
    for option in ["--check", "--config"] {
        let (status, stderr) = fails(&[option, file.path()]);
        assert_eq!(status, Some(2), "{stderr}");
        let wrong = "line 6: rules[0].pubish: unknown key, did you mean publish?";
        assert!(stderr.contains(wrong), "{stderr}");
    }
    let (status, stderr) = fails(&["--policy", policy.path(), "--listen", ANY_PORT]);
    assert_eq!(status, Some(2), "{stderr}");
}

#[test]
fn a_node_says_whether_names_belong_to_anybody() {
    let running = Running::start(&["--listen", ANY_PORT], 1);
    running.logs("no policy: every link may subscribe to any name, and publish to any");
    let policy = ConfigFile::new("says", POLICY);
    let running = Running::start(&["--listen", ANY_PORT, "--policy", policy.path()], 1);
    running.logs("nobody is known here: of the policy, only rules for anyone count");
}

#[test]
fn certificates_that_cannot_be_used_are_named_and_status_2() {
    let [certificate, _key] = certificate("unusable");
    let [_other, key] = self::certificate("unusable-other");
    let (cert, key) = (certificate.path(), key.path());
    for (args, expected) in [
        (&["--tls-cert", cert][..], "--tls-key"),
        (&["--tls-cert", cert, "--tls-key", "/no/such/key"], "cannot read the key /no/such/key"),
        (&["--tls-cert", cert, "--tls-key", cert], "no key in"),
        (&["--tls-cert", cert, "--tls-key", key], "does not belong to the certificate"),
    ] {
        let (status, stderr) = fails(&[&["--listen", ANY_PORT], args].concat());
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn a_file_can_be_checked() {
    let [certificate, key] = certificate("check");
    let text = |key: &str| {
        format!(
            "services: {{ slim/0: {{ domain_name: x, dataplane: {{ servers: [ {{ endpoint: \
             '127.0.0.1:1', tls: {{ cert_file: '{}', key_file: '{key}' }} }} ] }} }} }}",
            certificate.path()
        )
    };
    let file = ConfigFile::new("check", &text(key.path()));
    let output = run(&["--check", file.path()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let path = file.path();
    assert_eq!(said, format!("{path}: services.slim/0.domain_name has no effect\n{path}: good\n"));

    let file = ConfigFile::new("check-bad", &text("/no/such/key"));
    let (status, stderr) = fails(&["--check", file.path()]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("127.0.0.1:1: cannot read the key /no/such/key"), "{stderr}");
    let (status, stderr) = fails(&["--check", "/no/such/file"]);
    assert_eq!(status, Some(2), "{stderr}");
}

#[tokio::test]
async fn sighup_loads_certificates_and_the_log_level_and_ends_no_link() {
    let [certificate, key] = certificate("hangup");
    let text = |level: &str| {
        format!(
            "tracing: {{ log_level: {level} }}\nservices: {{ slim/0: {{ dataplane: {{ servers: \
             [ {{ endpoint: '{ANY_PORT}', tls: {{ cert_file: '{}', key_file: '{}', \
             reload_interval: 0s }} }} ] }} }} }}",
            certificate.path(),
            key.path()
        )
    };
    let file = ConfigFile::new("hangup", &text("info"));
    let running = Running::start(&["--config", file.path()], 1);
    let link = dial_with(running.addrs[0], &certificate).await.unwrap();
    running.logs("link up");

    let [new_certificate, new_key] = self::certificate("hangup-new");
    std::fs::copy(new_certificate.path(), certificate.path()).unwrap();
    std::fs::copy(new_key.path(), key.path()).unwrap();
    std::fs::write(file.path(), text("debug")).unwrap();
    running.signal("HUP");
    running.logs("certificates loaded anew");
    running.logs("log level as in the file level=DEBUG");
    dial_with(running.addrs[0], &new_certificate).await.unwrap();

    // What cannot be used changes nothing.
    std::fs::write(key.path(), "no key").unwrap();
    std::fs::write(file.path(), "tracing: { log_level: loud }").unwrap();
    running.signal("HUP");
    running.logs("the old certificates stay");
    running.logs("the log level and the limits stay");
    dial_with(running.addrs[0], &new_certificate).await.unwrap();

    // The first link is there all the while.
    let (sender, mut receiver) = link.split();
    sender.send(&Message::Unsubscribe(subscription(&name("nobody", 1), 6))).await.unwrap();
    within(receiver.recv()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_in_good_order() {
    for signal in ["INT", "TERM"] {
        let running = Running::start(&["--listen", ANY_PORT], 1);
        let mut stream = RawStream::start(running.addrs[0]).await;
        running.signal(signal);
        assert_eq!(stream.end().await, End::Status("0".to_owned()));
        let (status, log) = running.end();
        assert_eq!(status, Some(0), "{log:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let running = Running::start(&["--listen", ANY_PORT], 1);
    let addr = running.addrs[0];
    // Somebody who does not take what is queued, so there is something to drain.
    let mut stuck = RawStream::start(addr).await;
    stuck.send_signed(&Message::Subscribe(subscription(&name("stuck", 2), 5))).await;
    assert_eq!(stuck.next().await, Some(Message::SubscriptionAck(ok(5))));
    let mut sender = RawStream::start(addr).await;
    let header = Header::new(name("alice", 1), name("stuck", 2), UNICAST);
    let message = publish(header, vec![b'x'; 100_000]);
    for _ in 0..5 {
        sender.send_signed(&message).await;
    }
    sender.send_signed(&Message::Unsubscribe(subscription(&name("nobody", 1), 6))).await;
    assert!(sender.next().await.is_some(), "all of it has been read");
    let start = Instant::now();
    running.signal("TERM");
    running.logs("draining");
    running.signal("TERM");
    let (status, log) = running.end();
    assert_eq!(status, Some(1), "{log:?}");
    assert!(start.elapsed() < Duration::from_secs(9), "sooner than the drain");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_line_holds_a_payload_or_a_token() {
    let running =
        Running::start(&["--listen", ANY_PORT, "--log", "trace", "--log-format", "json"], 1);
    let addr = running.addrs[0];
    let mut bob = RawStream::start(addr).await;
    let mut alice = RawStream::start(addr).await;
    let mut subscribe = subscription(&name("bob", 2), 5);
    subscribe.header.identity = "bobs-token".to_owned();
    bob.send_signed(&Message::Subscribe(subscribe.clone())).await;
    assert_eq!(bob.next().await, Some(Message::SubscriptionAck(ok(5))));
    let mut header = Header::new(name("alice", 1), name("bob", 2), UNICAST);
    header.identity = "alices-token".to_owned();
    let message = publish(header.clone(), "the-payload");
    // Delivered; without a MAC; cut off; to nobody; refused.
    alice.send_signed(&message).await;
    alice.send(&message).await;
    let bytes = alice.signed(&message).encode();
    alice.send_bytes(&bytes[..bytes.len() - 1]).await;
    header.destination = name("nobody", 3);
    alice.send_signed(&publish(header, "the-payload")).await;
    subscribe.header.destination = name("nobody", 4);
    alice.send_signed(&Message::Unsubscribe(subscribe)).await;
    assert_eq!(text(&bob.next().await.unwrap()), "the-payload");
    assert!(alice.next().await.is_some(), "the refusal");
    running.signal("TERM");
    let (status, log) = running.end();
    assert_eq!(status, Some(0));
    for line in &log {
        let fields: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(fields.is_object(), "{line}");
        for secret in ["the-payload", "alices-token", "bobs-token"] {
            assert!(!line.contains(secret), "{line}");
            // Nor as bytes.
            let bytes = format!("{:?}", secret.as_bytes());
            assert!(!line.contains(bytes.trim_matches(['[', ']'])), "{line}");
        }
    }
    for expected in ["link up", "publish", "messages dropped", "subscription refused", "link down"]
    {
        assert!(log.iter().any(|line| line.contains(expected)), "{expected} is not in {log:#?}");
    }
}

#[test]
fn help_names_each_option() {
    let output = run(&["--help"]);
    let mut text = String::new();
    output.stdout.as_slice().read_to_string(&mut text).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for option in [
        "--listen",
        "--admin",
        "--config",
        "--check",
        "--health",
        "--policy",
        "policy ",
        "--tls-cert",
        "--tls-key",
        "--tls-client-ca",
        "--node-id",
        "--peer",
        "--relay",
        "--peer-ca",
        "--log",
        "--log-format",
    ] {
        assert!(text.contains(option), "{text}");
    }
}

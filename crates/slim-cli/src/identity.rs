//! Who we are: the options that say so, and the commands that make what they name.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use slim_auth::{
    Algorithm, Identity as _, JwtIdentity, JwtIdentityConfig, JwtKey, SigningKey, TrustList,
    new_did_pem, parse_did_key,
};
use slim_client::IdentityBinding;
use slim_identity::{Issuer, Sources, Speaker, Trust, Workload, WorkloadError};

use crate::args::{Secret, SecretArgs};
use crate::failure::Failure;

/// Who we are, and whom we believe.
#[derive(Debug, Args)]
pub(crate) struct IdentityArgs {
    #[command(flatten)]
    secret: SecretArgs,

    /// Identity: a private key in PEM, as `slim identity new` makes it. With --subject it
    /// signs tokens for that subject; without, it has to be an Ed25519 key, and is the
    /// subject itself (did:key). Needs --trust or --jwks.
    #[arg(long, env = "SLIM_IDENTITY", value_name = "FILE")]
    identity: Option<PathBuf>,

    /// For whom --identity signs tokens.
    #[arg(long, env = "SLIM_SUBJECT", value_name = "TEXT", requires = "identity")]
    subject: Option<String>,

    /// How --identity signs tokens [default: ES256, ES384, EdDSA or RS256, as the key is].
    #[arg(long, env = "SLIM_ALGORITHM", value_name = "ALG", requires = "subject")]
    algorithm: Option<Algorithm>,

    /// Seconds that a token of --identity lasts [default: 3600].
    #[arg(
        long,
        env = "SLIM_TOKEN_DURATION",
        value_name = "SECONDS",
        requires = "subject",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    token_duration: Option<u64>,

    /// Identity: a file with a token that somebody else issued. Needs --jwt-key.
    #[arg(long, env = "SLIM_JWT", value_name = "FILE")]
    jwt: Option<PathBuf>,

    /// The P-256 private key in PEM whose public half is the claim "pubkey" of --jwt, as
    /// `slim identity show` prints it.
    #[arg(long, env = "SLIM_JWT_KEY", value_name = "FILE", requires = "jwt")]
    jwt_key: Option<PathBuf>,

    /// Identity, and whom to believe: the SPIFFE agent (SPIRE) at this socket. Without a
    /// SOCKET, the variable SPIFFE_ENDPOINT_SOCKET says where.
    #[arg(
        long,
        env = "SLIM_SPIRE_SOCKET",
        value_name = "SOCKET",
        num_args = 0..=1,
        default_missing_value = ""
    )]
    spire_socket: Option<String>,

    /// Which identity, if the agent of --spire-socket has several for us [default: its first].
    #[arg(long, env = "SLIM_SPIFFE_ID", value_name = "SPIFFE-ID", requires = "spire_socket")]
    spiffe_id: Option<String>,

    /// Believe this trust domain; may repeat [default: all whose keys the agent of
    /// --spire-socket has].
    #[arg(long, env = "SLIM_TRUST_DOMAIN", value_name = "DOMAIN", requires = "spire_socket")]
    trust_domain: Vec<String>,

    /// Whom to believe: the list that `slim identity trust` writes, or another JWKS with
    /// one key for each peer, which speaks for nobody else.
    #[arg(long, env = "SLIM_TRUST", value_name = "FILE")]
    trust: Option<PathBuf>,

    /// Whom to believe: a JWKS whose keys speak for anybody.
    #[arg(long, env = "SLIM_JWKS", value_name = "FILE")]
    jwks: Option<PathBuf>,

    /// Whom to believe: a JSON object of trust domain and base64 of its JWKS. Needs
    /// --audience.
    #[arg(long, env = "SLIM_SPIRE_TRUST_BUNDLE", value_name = "FILE", requires = "audience")]
    spire_trust_bundle: Option<PathBuf>,

    /// Whom to believe: the OpenID Connect issuer with this URL.
    #[arg(long, env = "SLIM_OIDC_ISSUER", value_name = "URL")]
    oidc_issuer: Option<String>,

    /// For whom tokens have to be; may repeat. Tokens of --identity and --spire-socket name
    /// it too; for the latter it is slim unless you say otherwise.
    #[arg(long, env = "SLIM_AUDIENCE", value_name = "TEXT")]
    audience: Vec<String>,

    /// What becomes of peers whose token is good, but whose name is not the one of their
    /// identity, whose commands are signed in part, or who invite to a channel of somebody
    /// else. enforce: they are not heard. warn: they are, and an error event tells; off:
    /// they are. With both, everybody whom we believe can speak under a name of somebody
    /// else. Tokens and signatures have to be good in any case.
    #[arg(
        long,
        env = "SLIM_IDENTITY_BINDING",
        value_enum,
        value_name = "MODE",
        default_value = "enforce"
    )]
    identity_binding: Binding,
}

/// How strictly names have to follow from identities.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Binding {
    Enforce,
    Warn,
    Off,
}

const TOO_MANY: &str = "more than one identity: --shared-secret, --identity, --jwt and \
                        --spire-socket exclude each other";

/// Where our identity comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// From a secret that all share.
    Secret(Secret),
    /// From files, and those we believe from a file or an issuer.
    Files(Box<Sources>),
    /// Both from a SPIFFE agent.
    Agent(Box<Workload>),
}

impl IdentityArgs {
    /// How strictly names have to follow from identities.
    pub(crate) fn binding(&self) -> IdentityBinding {
        match self.identity_binding {
            Binding::Enforce => IdentityBinding::Enforce,
            Binding::Warn => IdentityBinding::Warn,
            Binding::Off => IdentityBinding::Off,
        }
    }

    /// What the options mean. A secret that is a variable is what is left if no option
    /// says otherwise.
    ///
    /// # Errors
    /// If they say nothing, too much, or half.
    pub(crate) fn source(mut self, secret_is_variable: bool) -> Result<Source, String> {
        let is_other = self.identity.is_some() || self.jwt.is_some() || self.spire_socket.is_some();
        let secret = self.secret.take();
        let secret = secret.filter(|_| !(secret_is_variable && is_other));
        if let Some(socket) = self.spire_socket.take() {
            if secret.is_some() || self.identity.is_some() || self.jwt.is_some() {
                return Err(TOO_MANY.to_owned());
            }
            return self.workload(&socket).map(|workload| Source::Agent(Box::new(workload)));
        }
        let speaker = match (secret, self.identity.take(), self.jwt.take()) {
            (Some(secret), None, None) => {
                if let Some(option) = self.trusted_by() {
                    return Err(format!(
                        "{option} needs --identity or --jwt: a secret verifies by itself"
                    ));
                }
                return secret.checked().map(Source::Secret);
            }
            (None, Some(key), None) => match self.subject.take() {
                None => Speaker::Did { key },
                Some(subject) => {
                    let mut config = JwtIdentityConfig::new(subject);
                    // Those who verify with a set of keys want to know the issuer.
                    config.issuer = Some(config.subject.clone());
                    config.duration = self.token_duration.unwrap_or(config.duration);
                    Speaker::Signer { key, algorithm: self.algorithm, config }
                }
            },
            (None, None, Some(token)) => {
                let key = self.jwt_key.take().ok_or(
                    "--jwt needs --jwt-key: without the key to the token nothing can be signed",
                )?;
                Speaker::Token { token, key }
            }
            (None, None, None) => {
                return Err("no identity: give --shared-secret or SLIM_SHARED_SECRET, \
                            --identity, --jwt, or --spire-socket"
                    .to_owned());
            }
            _ => {
                return Err(TOO_MANY.to_owned());
            }
        };
        let audience = std::mem::take(&mut self.audience);
        let trust = match (
            self.trust.take(),
            self.jwks.take(),
            self.spire_trust_bundle.take(),
            self.oidc_issuer.take(),
        ) {
            (Some(file), None, None, None) => Trust::Peers(file),
            (None, Some(file), None, None) => Trust::Keys(file),
            (None, None, Some(file), None) => Trust::Bundle(file),
            (None, None, None, Some(url)) => {
                Trust::Issuer(Issuer::new(&url).map_err(|error| format!("--oidc-issuer: {error}"))?)
            }
            (None, None, None, None) => {
                return Err("whom to believe? give --trust, --jwks, --spire-trust-bundle or \
                            --oidc-issuer"
                    .to_owned());
            }
            _ => {
                return Err("--trust, --jwks, --spire-trust-bundle and --oidc-issuer exclude \
                            each other"
                    .to_owned());
            }
        };
        Ok(Source::Files(Box::new(Sources { speaker, trust, audience })))
    }

    /// The agent that says who we are and whom to believe.
    fn workload(&mut self, socket: &str) -> Result<Workload, String> {
        if let Some(option) = self.trusted_by().filter(|option| *option != "--audience") {
            return Err(format!(
                "{option} excludes --spire-socket: the agent says whom to believe"
            ));
        }
        let given = |error: WorkloadError| format!("--spire-socket: {error}");
        let workload = Workload::new(Some(socket).filter(|socket| !socket.is_empty()));
        let workload = workload.map_err(given)?.with_domains(&self.trust_domain);
        let workload = workload.map_err(|error| format!("--trust-domain: {error}"))?;
        let workload = workload.with_audience(std::mem::take(&mut self.audience));
        match &self.spiffe_id {
            None => Ok(workload),
            Some(id) => workload.with_id(id).map_err(|error| format!("--spiffe-id: {error}")),
        }
    }

    /// The first option that is of no use to a secret.
    fn trusted_by(&self) -> Option<&'static str> {
        [
            ("--trust", self.trust.is_some()),
            ("--jwks", self.jwks.is_some()),
            ("--spire-trust-bundle", self.spire_trust_bundle.is_some()),
            ("--oidc-issuer", self.oidc_issuer.is_some()),
            ("--audience", !self.audience.is_empty()),
        ]
        .into_iter()
        .find_map(|(option, given)| given.then_some(option))
    }
}

/// What can be done with identities.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(crate) enum Command {
    /// Make an Ed25519 key that is an identity, and print its did:key.
    New {
        /// Where the private key goes, readable for its owner alone. Must not be there yet.
        #[arg(value_name = "KEYFILE")]
        file: PathBuf,
        /// Make a P-256 key for --jwt-key instead, and print the claim "pubkey" that the
        /// issuer of the token has to write.
        #[arg(long)]
        for_jwt: bool,
    },
    /// Print the did:key of an Ed25519 key or, for a P-256 key, the claim "pubkey" that
    /// the issuer of its token has to write. Never prints the private key.
    Show {
        /// The private key, in PEM.
        #[arg(value_name = "KEYFILE")]
        file: PathBuf,
        /// Print the public key as it stands in a JWKS instead, of a private or public key
        /// of any kind: P-256, P-384, RSA or Ed25519.
        #[arg(long)]
        jwk: bool,
        /// For whom it signs: the id of the key in the JWKS.
        #[arg(long, value_name = "TEXT", requires = "jwk")]
        subject: Option<String>,
    },
    /// Trust keys from now on, and print all that the list trusts.
    ///
    /// The list is a JWKS; those who use it notice within seconds.
    Trust {
        /// The list; made if it is not there.
        #[arg(value_name = "LIST")]
        list: PathBuf,
        /// Who: a did:key, the file of an Ed25519 key, or SUBJECT=KEYFILE for a key of any
        /// kind that signs tokens for this subject; to be removed, SUBJECT is enough.
        /// Without, the list is only printed.
        #[arg(value_name = "WHO")]
        who: Vec<String>,
        /// Trust them no longer.
        #[arg(long, requires = "who")]
        remove: bool,
    },
}

/// Does it.
///
/// # Errors
/// If a file cannot be read or written, or holds something else.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::New { file, for_jwt } => print_lines(&[new(file, *for_jwt)?]),
        Command::Show { file, jwk: false, .. } => print_lines(&[show(file)?]),
        Command::Show { file, subject, .. } => {
            let mut key = key(file)?;
            if let Some(subject) = subject {
                key = key.with_id(subject);
            }
            print_lines(&[key.to_jwk().unwrap_or_default().to_string()])
        }
        Command::Trust { list, who, remove } => print_lines(&trust(list, who, *remove)?),
    }
}

fn new(file: &Path, for_jwt: bool) -> Result<String, Failure> {
    let pem = if for_jwt {
        SigningKey::new_pem().map_err(|error| failure(file, &error))?
    } else {
        new_did_pem().map_err(|error| failure(file, &error))?
    };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(pem.as_bytes()))
        .map_err(|error| failure(file, &error))?;
    public_half(file, &pem)
}

fn show(file: &Path) -> Result<String, Failure> {
    public_half(file, &read(file)?)
}

/// The public half of a key of any kind.
fn key(file: &Path) -> Result<JwtKey, Failure> {
    JwtKey::from_any_pem(&read(file)?).map_err(|error| failure(file, &error))
}

/// The did:key, or the public key as a token has it.
fn public_half(file: &Path, pem: &str) -> Result<String, Failure> {
    if let Ok(identity) = JwtIdentity::did(pem, Vec::new()) {
        return Ok(identity.subject().to_owned());
    }
    let key = SigningKey::from_pem(pem)
        .map_err(|_| failure(file, &"neither an Ed25519 nor a P-256 private key in PEM"))?;
    Ok(key.public_key().to_base64())
}

fn trust(file: &Path, who: &[String], remove: bool) -> Result<Vec<String>, Failure> {
    let mut list = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !who.is_empty() => {
            TrustList::default()
        }
        Err(error) => return Err(failure(file, &error)),
        Ok(_) => TrustList::read(&read(file)?).map_err(|error| failure(file, &error))?,
    };
    for who in who {
        if let Some((subject, key_file)) = who.split_once('=') {
            let key = key(Path::new(key_file))?;
            if remove {
                list.remove(subject);
            } else {
                list.add_key(subject, key).map_err(|error| failure(file, &error))?;
            }
            continue;
        }
        if remove && list.remove(who) {
            continue;
        }
        let did = if who.starts_with("did:") { who.clone() } else { show(Path::new(who))? };
        parse_did_key(&did).map_err(|error| failure(Path::new(who), &error))?;
        if remove {
            list.remove(&did);
        } else {
            list.add(&did).map_err(|error| failure(file, &error))?;
        }
    }
    if !who.is_empty() {
        replace(file, &list.to_text()).map_err(|error| failure(file, &error))?;
    }
    Ok(list.subjects().into_iter().collect())
}

/// Puts the text in the place of what is there, all at once: somebody may be reading.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    fs::write(&beside, text)?;
    fs::rename(&beside, file)
}

fn read(file: &Path) -> Result<String, Failure> {
    let length = fs::metadata(file).map_err(|error| failure(file, &error))?.len();
    if length > slim_auth::KeySet::MAX_DOCUMENT as u64 {
        return Err(failure(file, &"too large"));
    }
    fs::read_to_string(file).map_err(|error| failure(file, &error))
}

fn print_lines(lines: &[String]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(stdout, "{line}")).map_err(|_| Failure::OutputClosed)
}

fn failure(file: &Path, reason: &impl std::fmt::Display) -> Failure {
    Failure::Other { code: "identity", message: format!("{}: {reason}", file.display()) }
}

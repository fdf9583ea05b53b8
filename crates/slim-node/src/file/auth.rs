//! The key `auth` of a server entry: what a dialler has to show.

use slim_auth::{Algorithm, JwtVerifierConfig, Users};
use slim_identity::{BearerKeys, Bearers, Issuer, LoadError, Text};
use slim_node::LinkAuth;

use super::section::{ConfigError, Section};

/// What an address takes as proof. Files are not read yet.
#[derive(Debug)]
pub(crate) enum AuthConfig {
    Basic(Users),
    Bearer { keys: BearerKeys, config: JwtVerifierConfig, subject: Option<String> },
}

impl AuthConfig {
    /// Reads the files and forgets them again.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        match self {
            Self::Basic(_) => Ok(()),
            Self::Bearer { keys, .. } => keys.check(),
        }
    }

    /// Reads the files, or asks the issuer, and goes on doing so.
    pub(crate) async fn load(self) -> Result<LinkAuth, LoadError> {
        Ok(match self {
            Self::Basic(users) => LinkAuth::Basic(users),
            Self::Bearer { keys, config, subject } => {
                LinkAuth::Bearer { bearers: Bearers::load(&keys, config).await?, subject }
            }
        })
    }
}

/// Reads the section.
pub(super) fn read(
    mut auth: Section,
    ignored: &mut Vec<String>,
) -> Result<AuthConfig, ConfigError> {
    const TYPES: &str = "required: basic, jwt or oidc";
    let kind = auth.text("type")?;
    let config = match kind.as_deref() {
        Some("basic") => AuthConfig::Basic(users(&mut auth)?),
        Some("jwt") => jwt(&mut auth, ignored)?,
        Some("oidc") => oidc(&mut auth)?,
        Some(other) => return Err(auth.unsupported("type", &format!("{other:?}; {TYPES}"))),
        None => return Err(auth.unsupported("type", TYPES)),
    };
    auth.refuse("policy", "policies over claims are not supported; see dataplane.policy")?;
    auth.deny_rest()?;
    Ok(config)
}

/// `username` and `password`, or `users: [{ username, password }]`.
fn users(auth: &mut Section) -> Result<Users, ConfigError> {
    let pair = |section: &mut Section| -> Result<Option<(String, String)>, ConfigError> {
        match (section.text("username")?, section.secret("password")?) {
            (None, None) => Ok(None),
            (Some(user), Some(password)) => Ok(Some((user, password))),
            (None, Some(_)) => Err(section.unsupported("username", "required")),
            (Some(_), None) => Err(section.unsupported("password", "required")),
        }
    };
    let mut users: Vec<_> = pair(auth)?.into_iter().collect();
    for mut entry in auth.list("users")? {
        users.push(pair(&mut entry)?.ok_or_else(|| entry.unsupported("username", "required"))?);
        entry.deny_rest()?;
    }
    if users.is_empty() {
        return Err(auth.itself("nobody could come in: give username and password, or users"));
    }
    Users::new(users).map_err(|error| auth.itself(&error.to_string()))
}

fn jwt(auth: &mut Section, ignored: &mut Vec<String>) -> Result<AuthConfig, ConfigError> {
    let mut claims = auth.section("claims")?;
    let config = JwtVerifierConfig {
        audience: audience(&mut claims)?,
        issuer: claims.text("issuer")?,
        ..JwtVerifierConfig::default()
    };
    // What is asked for has to be there.
    let config = JwtVerifierConfig {
        require_audience: !config.audience.is_empty(),
        require_issuer: config.issuer.is_some(),
        ..config
    };
    let subject = claims.text("subject")?;
    // How long tokens last is for those who make them.
    auth.ignore("duration", ignored);
    let mut key = auth.section("key")?;
    let keys = match key.text("type")?.as_deref() {
        Some("decoding") => decoding(&mut key)?,
        Some("autoresolve") => {
            // Or whoever runs a server could be anybody.
            let issuer = config.issuer.as_deref().ok_or_else(|| {
                claims.unsupported("issuer", "required, to know whose keys to ask for")
            })?;
            BearerKeys::Issuer(
                Issuer::new(issuer).map_err(|e| claims.unsupported("issuer", &e.to_string()))?,
            )
        }
        _ => return Err(key.unsupported("type", "required: decoding or autoresolve")),
    };
    claims.deny_rest()?;
    key.deny_rest()?;
    Ok(AuthConfig::Bearer { keys, config, subject })
}

/// `{ algorithm, format: pem | jwk | jwks, key: { data } | { file } }`.
fn decoding(key: &mut Section) -> Result<BearerKeys, ConfigError> {
    let algorithm = match key.text("algorithm")? {
        None => None,
        Some(text) => {
            let parsed: Result<Algorithm, _> = text.parse();
            Some(parsed.map_err(|error| key.unsupported("algorithm", &error.to_string()))?)
        }
    };
    let format = key.text("format")?;
    let mut inner = key.section("key")?;
    let text = match (inner.text("data")?, inner.text("file")?) {
        (Some(data), None) => Text::Inline(data),
        (None, Some(path)) => Text::File(path.into()),
        (Some(_), Some(_)) => return Err(inner.itself("both data and file: give one of them")),
        (None, None) => return Err(inner.itself("required: { file: … } or { data: … }")),
    };
    inner.deny_rest()?;
    match (format.as_deref(), algorithm) {
        (Some("pem"), Some(algorithm)) => Ok(BearerKeys::Pem(algorithm, text)),
        (Some("pem"), None) => Err(key.unsupported("algorithm", "required for pem, e.g. ES256")),
        (Some("jwk"), algorithm) => Ok(BearerKeys::Jwk(algorithm, text)),
        // Each key of a set says how it is used.
        (Some("jwks"), _) => Ok(BearerKeys::Jwks(text)),
        _ => Err(key.unsupported("format", "required: pem, jwk or jwks")),
    }
}

/// `{ issuer_url, audience }`.
fn oidc(auth: &mut Section) -> Result<AuthConfig, ConfigError> {
    let url = auth.text("issuer_url")?;
    let url = url.ok_or_else(|| auth.unsupported("issuer_url", "required"))?;
    let issuer = Issuer::new(&url);
    let issuer = issuer.map_err(|error| auth.unsupported("issuer_url", &error.to_string()))?;
    let audience = audience(auth)?;
    if audience.is_empty() {
        // An issuer has tokens for everything; those that are not for nodes must not do.
        return Err(auth.unsupported("audience", "required: whom the tokens have to be for"));
    }
    let config = JwtVerifierConfig {
        audience,
        require_audience: true,
        require_issuer: true,
        ..JwtVerifierConfig::default()
    };
    Ok(AuthConfig::Bearer { keys: BearerKeys::Issuer(issuer), config, subject: None })
}

fn audience(section: &mut Section) -> Result<Vec<String>, ConfigError> {
    let mut audience = Vec::new();
    for key in ["audience", "audiences", "aud"] {
        audience.extend(section.texts(key)?);
    }
    Ok(audience)
}

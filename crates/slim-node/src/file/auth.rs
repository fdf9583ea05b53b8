//! The key `auth` of a server entry: what a dialler has to show.

use std::path::PathBuf;

use slim_auth::{Algorithm, JwtVerifierConfig, Users};
use slim_identity::{BearerKeys, Bearers, Issuer, LoadError, Text};
use slim_node::LinkAuth;

use super::error::ConfigError;
use super::setting::{Place, choice, mapping};
use super::value::{KeyFormat, Texts, Verbatim};

choice! {
    /// What a dialler has to show.
    pub(super) enum AuthKeys {
        "basic" => Basic(BasicKeys),
        "jwt" => Jwt(JwtKeys),
        "oidc" => Oidc(OidcKeys),
    }
}

mapping! {
    /// A password.
    pub(super) struct BasicKeys {
        /// One user; who has shown it is `basic:USERNAME`.
        username: Option<String>,
        /// The user's password.
        password: Option<Verbatim>,
        /// Users, in addition to the one.
        users: Vec<UserKeys>,
    }
    refused {
        policy: "policies over claims are not supported; see dataplane.policy",
    }
    demands {
        ["username", "password", "users"]:
            "nobody could come in: give username and password, or users",
    }
}

mapping! {
    /// A user.
    pub(super) struct UserKeys {
        /// Who.
        username: String,
        /// The password.
        password: Verbatim,
    }
}

mapping! {
    /// A token that is signed with a known key; who has shown it is `jwt:SUBJECT`.
    pub(super) struct JwtKeys {
        /// What a token has to say; what is not there is not demanded.
        claims: ClaimsKeys,
        /// With what it has to be signed.
        key: VerifyingKeys,
    }
    ignored {
        duration: "how long tokens last is for those who make them",
    }
    refused {
        policy: "policies over claims are not supported; see dataplane.policy",
    }
}

mapping! {
    /// What a token has to say.
    pub(super) struct ClaimsKeys {
        /// Who has issued it.
        issuer: Option<String>,
        /// Whom it is about.
        subject: Option<String>,
    }
    flat {
        audience: AudienceKeys,
    }
}

mapping! {
    /// Whom a token is for.
    pub(super) struct AudienceKeys {
        /// Whom it is for: one of these.
        audience: Texts,
        /// More of them, in another spelling.
        audiences: Texts,
        /// More of them, in another spelling.
        aud: Texts,
    }
}

mapping! {
    /// A token of an OpenID Connect issuer; who has shown it is `jwt:SUBJECT`.
    pub(super) struct OidcKeys {
        /// The issuer, which is asked for its keys.
        issuer_url: String,
    }
    flat {
        audience: AudienceKeys,
    }
    refused {
        policy: "policies over claims are not supported; see dataplane.policy",
    }
    demands {
        // An issuer has tokens for everything; those that are not for nodes must not do.
        ["audience", "audiences", "aud"]: "audience is required: whom the tokens have to be for",
    }
}

choice! {
    /// With what a token has to be signed.
    pub(super) enum VerifyingKeys {
        "decoding" => Decoding(DecodingKeys),
        "autoresolve" => Autoresolve(AutoresolveKeys),
    }
}

mapping! {
    /// With these keys.
    pub(super) struct DecodingKeys {
        /// The algorithm; required for `pem`.
        algorithm: Option<Algorithm>,
        /// How the keys are written.
        format: KeyFormat,
        /// Where they are.
        key: KeyTextKeys,
    }
}

mapping! {
    /// With the keys of `claims.issuer`, which is asked for them.
    pub(super) struct AutoresolveKeys {}
}

mapping! {
    /// Where a key is: either of both.
    pub(super) struct KeyTextKeys {
        /// The key itself.
        data: Option<String>,
        /// File of the key, which is read again when it changes.
        file: Option<PathBuf>,
    }
    demands {
        ["file", "data"]: "required: { file: … } or { data: … }",
    }
}

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

impl AuthKeys {
    /// What is taken as proof.
    pub(super) fn config(self) -> Result<AuthConfig, ConfigError> {
        match self {
            Self::Basic(keys) => keys.users().map(AuthConfig::Basic),
            Self::Jwt(keys) => keys.config(),
            Self::Oidc(keys) => keys.config(),
        }
    }
}

impl BasicKeys {
    fn users(self) -> Result<Users, ConfigError> {
        let Self { place, username, password, users, .. } = self;
        let mut pairs = match (username, password) {
            (None, None) => Vec::new(),
            (Some(user), Some(password)) => vec![(user, password.0)],
            (None, Some(_)) => return Err(place.error_at("username", "required")),
            (Some(_), None) => return Err(place.error_at("password", "required")),
        };
        pairs.extend(users.into_iter().map(|user| (user.username, user.password.0)));
        if pairs.is_empty() {
            return Err(place.error_at("users", "nobody could come in"));
        }
        Users::new(pairs).map_err(|error| place.error(error.to_string()))
    }
}

impl JwtKeys {
    fn config(self) -> Result<AuthConfig, ConfigError> {
        let ClaimsKeys { place, issuer, subject, audience } = self.claims;
        let audience = audience.all();
        let keys = match self.key {
            VerifyingKeys::Decoding(keys) => keys.config()?,
            VerifyingKeys::Autoresolve(AutoresolveKeys { .. }) => {
                // Or whoever runs a server could be anybody.
                let reason = "required, to know whose keys to ask for";
                let issuer = issuer.as_deref().ok_or_else(|| place.error_at("issuer", reason))?;
                keys_of(issuer, &place, "issuer")?
            }
        };
        let config = JwtVerifierConfig {
            // What is asked for has to be there.
            require_audience: !audience.is_empty(),
            require_issuer: issuer.is_some(),
            audience,
            issuer,
            ..JwtVerifierConfig::default()
        };
        Ok(AuthConfig::Bearer { keys, config, subject })
    }
}

fn keys_of(issuer: &str, place: &Place, key: &str) -> Result<BearerKeys, ConfigError> {
    let issuer = Issuer::new(issuer).map_err(|error| place.error_at(key, error.to_string()))?;
    Ok(BearerKeys::Issuer(issuer))
}

impl DecodingKeys {
    fn config(self) -> Result<BearerKeys, ConfigError> {
        let text = match (self.key.data, self.key.file) {
            (Some(data), None) => Text::Inline(data),
            (None, Some(path)) => Text::File(path),
            _ => return Err(self.key.place.error("both data and file: give one of them")),
        };
        match (self.format, self.algorithm) {
            (KeyFormat::Pem, Some(algorithm)) => Ok(BearerKeys::Pem(algorithm, text)),
            (KeyFormat::Pem, None) => {
                Err(self.place.error_at("algorithm", "required for pem, e.g. ES256"))
            }
            (KeyFormat::Jwk, algorithm) => Ok(BearerKeys::Jwk(algorithm, text)),
            // Each key of a set says how it is used.
            (KeyFormat::Jwks, _) => Ok(BearerKeys::Jwks(text)),
        }
    }
}

impl OidcKeys {
    fn config(self) -> Result<AuthConfig, ConfigError> {
        let keys = keys_of(&self.issuer_url, &self.place, "issuer_url")?;
        let audience = self.audience.all();
        if audience.is_empty() {
            return Err(self.place.error_at("audience", "required"));
        }
        let config = JwtVerifierConfig {
            audience,
            require_audience: true,
            require_issuer: true,
            ..JwtVerifierConfig::default()
        };
        Ok(AuthConfig::Bearer { keys, config, subject: None })
    }
}

impl AudienceKeys {
    fn all(self) -> Vec<String> {
        [self.audience.0, self.audiences.0, self.aud.0].concat()
    }
}

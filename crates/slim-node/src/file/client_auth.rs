//! The key `auth` of a peer: what its node is shown. `slim-identity` reads it, for the
//! node and for `slim`; here are its keys.

use std::time::Duration;

use slim_auth::Algorithm;

use super::setting::{choice, mapping};
use super::value::{PemFormat, Texts, Verbatim, shown};

choice! {
    /// What the other node is shown.
    #[expect(dead_code, reason = "slim-identity reads it")]
    pub(super) enum CredentialsKeys {
        "none" => None(NoKeys),
        "basic" => Basic(PasswordKeys),
        "static_jwt" => Token(TokenKeys),
        "jwt" => Signer(SignerKeys),
    }
}

mapping! {
    /// Nothing.
    pub(super) struct NoKeys {}
}

mapping! {
    /// A password.
    #[expect(dead_code, reason = "slim-identity reads it")]
    pub(super) struct PasswordKeys {
        /// Who one is.
        username: Verbatim,
        /// The password.
        password: Verbatim,
    }
}

mapping! {
    /// A token.
    #[expect(dead_code, reason = "slim-identity reads it")]
    pub(super) struct TokenKeys {
        /// File of the token, read for each link.
        file: Option<Verbatim>,
        /// `file`, in an older spelling.
        token_file: Option<Verbatim>,
    }
    ignored {
        duration: "the file is read for each link",
    }
    demands {
        ["file", "token_file"]: "file is required: where the token is",
    }
}

mapping! {
    /// A token that is signed for each link.
    #[expect(dead_code, reason = "slim-identity reads it")]
    pub(super) struct SignerKeys {
        /// What it says.
        claims: SignedClaimsKeys,
        /// How long it is good; at least 1 s.
        duration: Option<Duration> = shown(Duration::from_secs(
            slim_auth::JwtIdentityConfig::new("").duration,
        )),
        /// With what it is signed.
        key: SigningKeys,
    }
}

mapping! {
    /// What a token says.
    #[expect(dead_code, reason = "slim-identity reads it")]
    pub(super) struct SignedClaimsKeys {
        /// Whom it is about.
        subject: Verbatim,
        /// Who has issued it.
        issuer: Option<Verbatim>,
        /// Whom it is for.
        audience: Texts,
        /// More of them, in another spelling.
        audiences: Texts,
        /// More of them, in another spelling.
        aud: Texts,
    }
}

choice! {
    /// With what a token is signed.
    #[expect(dead_code, reason = "slim-identity reads it")]
    pub(super) enum SigningKeys {
        "encoding" => Encoding(EncodingKeys),
    }
}

mapping! {
    /// With this key.
    #[expect(dead_code, reason = "slim-identity reads it")]
    pub(super) struct EncodingKeys {
        /// The algorithm. Default what the key is for.
        algorithm: Option<Algorithm>,
        /// How it is written.
        format: Option<PemFormat> = "pem",
        /// Where it is.
        key: SigningTextKeys,
    }
}

mapping! {
    /// Where a key is: either of both.
    #[expect(dead_code, reason = "slim-identity reads it")]
    pub(super) struct SigningTextKeys {
        /// File of the key.
        file: Option<Verbatim>,
        /// The key itself.
        data: Option<Verbatim>,
    }
    demands {
        ["file", "data"]: "required: { file: … } or { data: … }",
    }
}

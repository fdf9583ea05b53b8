//! The three parts of a token.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    identity::{A_JWT, A_SECRETS, VerifyError},
    key::PublicKey,
    shown::Shown,
};

/// No token is longer, in bytes. It travels in the header of every message.
pub(super) const MAX_TOKEN: usize = 16 * 1024;

/// What the header says about the signature (RFC 7515 §4.1).
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    /// Extensions that a receiver must understand. We understand none.
    crit: Option<Value>,
}

/// A token taken apart. Nothing in it has been verified.
pub(super) struct Parts<'a> {
    pub(super) header: Header,
    pub(super) claims: Map<String, Value>,
    /// What the signature covers.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    pub(super) fn read(token: &'a str) -> Result<Self, VerifyError> {
        if token.len() > MAX_TOKEN {
            return Err(VerifyError::Malformed("length"));
        }
        if token.split(':').count() == 5 && !token.contains('.') {
            return Err(VerifyError::OtherKind { found: A_SECRETS, expected: A_JWT });
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(VerifyError::Malformed("parts"))?;
        let (header, claims) = signed.split_once('.').ok_or(VerifyError::Malformed("parts"))?;
        if claims.contains('.') {
            return Err(VerifyError::Malformed("parts"));
        }
        let decode =
            |text, part| URL_SAFE_NO_PAD.decode(text).map_err(|_| VerifyError::Malformed(part));
        let header: Header = serde_json::from_slice(&decode(header, "header")?)
            .map_err(|_| VerifyError::Malformed("header"))?;
        if header.crit.is_some() {
            return Err(VerifyError::Malformed("header: crit"));
        }
        let claims = serde_json::from_slice(&decode(claims, "claims")?)
            .map_err(|_| VerifyError::Malformed("claims"))?;
        Ok(Self { header, claims, signed, signature: decode(signature, "signature")? })
    }

    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// A time in seconds since the Unix epoch, fractions dropped.
    pub(super) fn seconds(&self, claim: &'static str) -> Result<Option<u64>, VerifyError> {
        let Some(value) = self.claims.get(claim) else { return Ok(None) };
        let seconds = value.as_u64().or_else(|| {
            let seconds = value.as_f64()?;
            // Beyond, a float does not hold whole seconds.
            (0.0..9e15).contains(&seconds).then_some(seconds as u64)
        });
        seconds.map(Some).ok_or(VerifyError::Malformed(claim))
    }

    /// `sub`, or else `id`.
    pub(super) fn subject(&self) -> Result<&str, VerifyError> {
        self.text("sub")
            .or_else(|| self.text("id"))
            .filter(|subject| !subject.is_empty())
            .ok_or(VerifyError::Missing("sub"))
    }

    /// Who the token is for; `None` if it does not say.
    pub(super) fn audience(&self) -> Result<Option<Vec<&str>>, VerifyError> {
        match self.claims.get("aud") {
            None => Ok(None),
            Some(Value::String(one)) => Ok(Some(vec![one])),
            Some(Value::Array(several)) => several
                .iter()
                .map(|one| one.as_str().ok_or(VerifyError::Malformed("aud")))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(VerifyError::Malformed("aud")),
        }
    }

    /// The claim `pubkey`, at the top or among the custom claims.
    pub(super) fn public_key(&self) -> Result<PublicKey, VerifyError> {
        let custom = || self.claims.get("custom_claims")?.get("pubkey")?.as_str();
        let text = self.text("pubkey").or_else(custom).ok_or(VerifyError::NoPublicKey)?;
        Ok(PublicKey::from_base64(text)?)
    }

    /// The issuer, if it is named.
    pub(super) fn issuer(&self) -> Result<Option<&str>, VerifyError> {
        match self.claims.get("iss") {
            None => Ok(None),
            Some(Value::String(issuer)) => Ok(Some(issuer)),
            Some(_) => Err(VerifyError::Malformed("iss")),
        }
    }

    /// The id of the key, as far as it may be shown.
    pub(super) fn shown_key_id(&self) -> Option<Shown> {
        self.header.kid.as_deref().map(Shown::new)
    }
}

/// The part of a token that a signature covers.
pub(super) fn unsigned(header: &Value, claims: &Map<String, Value>) -> String {
    let encode = |json: String| URL_SAFE_NO_PAD.encode(json);
    let claims = Value::Object(claims.clone()).to_string();
    format!("{}.{}", encode(header.to_string()), encode(claims))
}

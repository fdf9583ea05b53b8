//! The object `auth` of whoever dials, as SLIM programs write it: in the JSON of an option
//! and in the YAML of a file.

use std::time::Duration;

use serde_json::{Map, Value};
use slim_auth::{Algorithm, JwtIdentityConfig};

use crate::bearers::{LinkCredentials, Text};

impl LinkCredentials {
    /// Reads the object. Files are not looked at.
    ///
    /// | `type` | keys |
    /// |---|---|
    /// | `none` | |
    /// | `basic` | `username`, `password` |
    /// | `static_jwt` | `file` |
    /// | `jwt` | `key: { type: encoding, algorithm, format: pem, key: { file } or { data } }`, `claims: { subject, issuer, audience }`, `duration` |
    ///
    /// # Errors
    /// The first thing that is wrong, with the key.
    pub fn from_config(value: Value) -> Result<Option<Self>, String> {
        let mut auth = Keys::new("auth", value)?;
        let credentials = match auth.text("type")?.as_deref() {
            Some("none") => None,
            Some("basic") => Some(Self::Basic {
                user: auth.required("username")?,
                password: auth.required("password")?,
            }),
            Some("static_jwt") => {
                let named = auth.text("file")?;
                let older = auth.text("token_file")?;
                // Read for each link: how long it is good does not matter.
                auth.take("duration");
                let path = named.or(older).ok_or("\"auth.file\" is missing: where the token is")?;
                Some(Self::Token(path.into()))
            }
            Some("jwt") => Some(signer(&mut auth)?),
            _ => return Err("\"auth.type\" is none of basic, static_jwt, jwt, none".to_owned()),
        };
        auth.deny_rest()?;
        Ok(credentials)
    }
}

fn signer(auth: &mut Keys) -> Result<LinkCredentials, String> {
    let mut claims = auth.keys("claims")?;
    let subject = claims.required("subject")?;
    let issuer = claims.text("issuer")?;
    let mut audience = Vec::new();
    for key in ["audience", "audiences", "aud"] {
        audience.extend(claims.texts(key)?);
    }
    claims.deny_rest()?;
    let defaults = JwtIdentityConfig::new(subject);
    let duration = match auth.text("duration")? {
        None => defaults.duration,
        Some(text) => parse_duration(&text)
            .map(|duration| duration.as_secs())
            .filter(|seconds| *seconds > 0)
            .ok_or("\"auth.duration\" is no duration such as 1h, of at least 1 s")?,
    };
    let mut key = auth.keys("key")?;
    if key.text("type")?.as_deref() != Some("encoding") {
        return Err("\"auth.key.type\" is not encoding".to_owned());
    }
    let algorithm = key.text("algorithm")?.map(|text| text.parse::<Algorithm>());
    let algorithm =
        algorithm.transpose().map_err(|error| format!("\"auth.key.algorithm\": {error}"))?;
    if key.text("format")?.is_some_and(|format| format != "pem") {
        return Err("\"auth.key.format\" is not pem".to_owned());
    }
    let mut inner = key.keys("key")?;
    let text = match (inner.text("file")?, inner.text("data")?) {
        (Some(path), None) => Text::File(path.into()),
        (None, Some(text)) => Text::Inline(text),
        _ => return Err("\"auth.key.key\" needs either \"file\" or \"data\"".to_owned()),
    };
    inner.deny_rest()?;
    key.deny_rest()?;
    let config = JwtIdentityConfig { issuer, audience, duration, ..defaults };
    Ok(LinkCredentials::Signer { key: text, algorithm, config })
}

/// A duration such as `10s`, `1500ms` or `1h30m`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let each = match &rest[..unit] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(60 * 60),
            _ => return None,
        };
        total = total.checked_add(each.checked_mul(number)?)?;
        rest = rest[unit..].trim_start();
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// An object whose keys are taken out one by one.
struct Keys {
    path: String,
    entries: Map<String, Value>,
}

impl Keys {
    fn new(path: &str, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(entries) => Ok(Self { path: path.to_owned(), entries }),
            Value::Null => Ok(Self { path: path.to_owned(), entries: Map::new() }),
            _ => Err(format!("{path:?} is not an object")),
        }
    }

    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.entries.remove(key).filter(|value| !value.is_null())
    }

    fn keys(&mut self, key: &str) -> Result<Self, String> {
        let value = self.take(key).unwrap_or(Value::Null);
        Self::new(&self.path(key), value)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{:?} is not a text", self.path(key))),
        }
    }

    fn required(&mut self, key: &str) -> Result<String, String> {
        let text = self.text(key)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("{:?} is missing", self.path(key)))
    }

    /// One text, or a list of them.
    fn texts(&mut self, key: &str) -> Result<Vec<String>, String> {
        let Some(Value::Array(items)) = self.entries.get(key).cloned() else {
            return Ok(self.text(key)?.into_iter().collect());
        };
        self.take(key);
        let texts: Option<_> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
        texts.ok_or_else(|| format!("{:?} is not a list of texts", self.path(key)))
    }

    fn deny_rest(&self) -> Result<(), String> {
        match self.entries.keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("{:?} is not known", self.path(key))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(value: Value) -> String {
        LinkCredentials::from_config(value).unwrap_err()
    }

    #[test]
    fn each_kind_is_read() {
        let check = |value: Value, expected: LinkCredentials| {
            assert_eq!(LinkCredentials::from_config(value), Ok(Some(expected)));
        };
        check(
            json!({ "type": "basic", "username": "alice", "password": "wonderland" }),
            LinkCredentials::Basic { user: "alice".to_owned(), password: "wonderland".to_owned() },
        );
        for key in ["file", "token_file"] {
            check(
                json!({ "type": "static_jwt", key: "/token", "duration": "1h" }),
                LinkCredentials::Token("/token".into()),
            );
        }
        let mut config = JwtIdentityConfig::new("me");
        config.audience = vec!["slim".to_owned()];
        config.issuer = Some("i".to_owned());
        config.duration = 600;
        let key = json!({
            "type": "encoding", "algorithm": "ES256", "format": "pem", "key": { "file": "/key" }
        });
        let claims = json!({ "subject": "me", "issuer": "i", "audience": ["slim"] });
        check(
            json!({ "type": "jwt", "claims": claims, "duration": "10m", "key": key }),
            LinkCredentials::Signer {
                key: Text::File("/key".into()),
                algorithm: Some(Algorithm::Es256),
                config,
            },
        );
        assert_eq!(LinkCredentials::from_config(json!({ "type": "none" })), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |value: Value, expected: &str| {
            let error = error(value);
            assert!(error.contains(expected), "{error}");
        };
        check(json!(7), "\"auth\" is not an object");
        check(json!({}), "\"auth.type\" is none of");
        check(json!({ "type": "oidc" }), "\"auth.type\" is none of");
        check(json!({ "type": "basic", "username": "a" }), "\"auth.password\" is missing");
        let extra = json!({ "type": "basic", "username": "a", "password": "b", "realm": "c" });
        check(extra, "\"auth.realm\" is not known");
        check(json!({ "type": "static_jwt" }), "\"auth.file\" is missing");
        check(json!({ "type": "jwt" }), "\"auth.claims.subject\" is missing");
        let claims = json!({ "subject": "a" });
        check(json!({ "type": "jwt", "claims": claims }), "\"auth.key.type\" is not encoding");
        let key = json!({ "type": "encoding", "key": {} });
        let jwt = json!({ "type": "jwt", "claims": claims, "key": key });
        check(jwt, "\"auth.key.key\" needs either");
        let jwt = json!({ "type": "jwt", "claims": claims, "duration": "0s" });
        check(jwt, "\"auth.duration\" is no duration");
    }
}

//! Tokens, claims and keys of strangers.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use rand::{SeedableRng as _, rngs::SmallRng};
use ring::hmac;
use slim_auth::{
    Algorithm, BadSignature, Identity as _, JwtKey, JwtSigningKey, JwtVerifier, JwtVerifierConfig,
    KeySet, PublicKey, SharedSecret, SigningKey, TokenIdentity, TrustList, Verifier as _,
    VerifyError, parse_did_key,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

static ALICE: LazyLock<SharedSecret> = LazyLock::new(|| {
    SharedSecret::new("org/ns/alice", SECRET, &mut SmallRng::seed_from_u64(1)).expect("an identity")
});

/// The same secret, as a key for JSON Web Tokens.
static JWT: LazyLock<JwtVerifier> = LazyLock::new(|| {
    let key = JwtKey::from_pem(Algorithm::Hs256, SECRET).expect("a key");
    let config = JwtVerifierConfig {
        audience: vec!["slim".into()],
        claims_in_audience: true,
        ..Default::default()
    };
    JwtVerifier::new(key.into(), config)
});

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// Any text.
    Token {
        text: &'a str,
        now: u64,
    },
    /// Any fields under a code that is right.
    Sealed {
        fields: &'a str,
        now: u64,
    },
    /// Any claims in a token that is right otherwise.
    Claims {
        subject: &'a str,
        json: &'a [u8],
    },
    /// A real token with one piece replaced by another.
    Altered {
        at: u16,
        length: u8,
        with: &'a str,
    },
    Key {
        key: &'a [u8],
        message: &'a [u8],
        signature: &'a [u8],
    },
    KeyText(&'a str),
    Document(&'a [u8]),
    /// Any text as a JSON Web Token.
    Jwt {
        text: &'a str,
        now: u64,
    },
    /// Any header and claims under a signature that is right.
    SignedJwt {
        header: &'a [u8],
        claims: &'a [u8],
        now: u64,
    },
    /// Documents with keys, of an issuer or a file.
    Keys(&'a str),
    Did(&'a str),
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Token { text, now } => check(text, now),
    Input::Sealed { fields, now } => check(&sealed(fields), now),
    Input::Claims { subject, json } => {
        let claims = URL_SAFE_NO_PAD.encode(json);
        check(&sealed(&format!("{subject}:1000:nonce:{claims}")), 1000);
    }
    Input::Altered { at, length, with } => altered(at.into(), length.into(), with),
    Input::Key { key, message, signature } => {
        if let Ok(key) = PublicKey::from_bytes(key) {
            assert_eq!(PublicKey::from_base64(&key.to_base64()).as_ref(), Ok(&key));
            // Nobody guesses a signature. Some keys of small order verify what
            // nobody signed, which is for those who use such a key.
            if key.as_bytes().len() != 32 {
                assert_eq!(key.verify(message, signature), Err(BadSignature));
            } else {
                key.verify(message, signature).ok();
            }
        }
    }
    Input::KeyText(text) => {
        if let Ok(key) = PublicKey::from_base64(text) {
            assert_eq!(key.to_base64(), text);
        }
    }
    Input::Document(der) => {
        SigningKey::from_pkcs8(der).ok();
    }
    Input::Jwt { text, now } => check_jwt(text, now),
    Input::SignedJwt { header, claims, now } => {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(header), encode(claims));
        check_jwt(&format!("{signed}.{}", code(&signed)), now);
    }
    Input::Keys(text) => {
        for algorithm in Algorithm::ALL {
            JwtKey::from_pem(algorithm, text).ok();
            JwtSigningKey::from_pem(algorithm, text).ok();
            KeySet::from_jwk(text, Some(algorithm)).ok();
        }
        KeySet::from_jwks(text).ok();
        KeySet::from_trust_bundle(text).ok();
        if let Ok(list) = TrustList::read(text) {
            list.key_set().ok();
            assert_eq!(TrustList::read(&list.to_text()), Ok(list));
        }
    }
    Input::Did(text) => {
        if let Ok(key) = parse_did_key(text) {
            assert_eq!(slim_auth::did_key(&key), text);
        }
    }
});

/// What is taken has a right signature, is in time and for us.
fn check_jwt(token: &str, now: u64) {
    match JWT.verify(token, now) {
        Ok(claims) => {
            let (signed, signature) = token.rsplit_once('.').expect("it has a signature");
            assert_eq!(signature, code(signed));
            assert!(now <= claims.expires_at && !claims.subject.is_empty());
            assert_eq!(JWT.authenticate(token, now), Ok(claims));
        }
        Err(error) => assert!(!error.to_string().contains(SECRET)),
    }
    TokenIdentity::new(token, ALICE.key().clone()).ok();
}

fn sealed(signed: &str) -> String {
    format!("{signed}:{}", code(signed))
}

fn code(signed: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()))
}

/// What is taken has a right code and says what is in it, and nothing that is
/// printed holds the secret.
fn check(token: &str, now: u64) {
    match ALICE.verify(token, now) {
        Ok(claims) => {
            let (signed, mac) = token.rsplit_once(':').expect("it has a code");
            assert_eq!(mac, code(signed));
            let fields: Vec<&str> = signed.split(':').collect();
            assert_eq!((fields.len(), fields[0]), (4, &*claims.subject));
            let issued_at = claims.issued_at.expect("it says when");
            assert_eq!(fields[1].parse(), Ok(issued_at));
            assert!(now <= claims.expires_at && issued_at <= now.saturating_add(5));
            assert_eq!(ALICE.authenticate(token, now), Ok(claims));
        }
        Err(VerifyError::Expired { ago }) => {
            let claims = ALICE.authenticate(token, now).expect("only its age is wrong");
            assert_eq!(now - claims.expires_at, ago);
        }
        Err(error) => {
            assert!(!error.to_string().contains(SECRET));
            assert_eq!(ALICE.authenticate(token, now), Err(error));
        }
    }
}

fn altered(at: usize, length: usize, with: &str) {
    let token = ALICE.token(1000, &mut SmallRng::seed_from_u64(2)).expect("a token");
    let at = at % (token.len() + 1);
    let end = (at + length).min(token.len());
    let altered = [&token[..at], with, &token[end..]].concat();
    assert_eq!(ALICE.verify(&altered, 1000).is_ok(), altered == token);
}

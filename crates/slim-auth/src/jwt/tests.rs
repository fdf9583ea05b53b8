//! Tokens of all kinds, and of all kinds of strangers.

use base64::engine::general_purpose::STANDARD;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::SmallRng};
use serde_json::{Value, json};

use super::{algorithm::Family, key::Jwk, token::MAX_TOKEN, *};
use crate::{
    Claims, Identity as _, PublicKeyError, Shown, SigningKey, TokenError, Verifier as _,
    VerifyError, did_key, new_did_pem,
};

const NOW: u64 = 1_795_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

const RSA: [&str; 2] =
    [include_str!("../../tests/keys/rsa.pem"), include_str!("../../tests/keys/rsa.pub.pem")];
const P256: [&str; 2] =
    [include_str!("../../tests/keys/p256.pem"), include_str!("../../tests/keys/p256.pub.pem")];
const P384: [&str; 2] =
    [include_str!("../../tests/keys/p384.pem"), include_str!("../../tests/keys/p384.pub.pem")];
const ED: [&str; 2] = [
    include_str!("../../tests/keys/ed25519.pem"),
    include_str!("../../tests/keys/ed25519.pub.pem"),
];

/// A private and a public key, in PEM.
fn pems(algorithm: Algorithm) -> [&'static str; 2] {
    match algorithm.family() {
        Family::Secret => [SECRET; 2],
        Family::P256 => P256,
        Family::P384 => P384,
        Family::Rsa => RSA,
        Family::Ed25519 => ED,
    }
}

fn signer(algorithm: Algorithm) -> JwtSigningKey {
    JwtSigningKey::from_pem(algorithm, pems(algorithm)[0]).unwrap()
}

fn public(algorithm: Algorithm) -> JwtKey {
    JwtKey::from_pem(algorithm, pems(algorithm)[1]).unwrap()
}

fn token(identity: &JwtIdentity, now: u64) -> String {
    identity.token(now, &mut SmallRng::seed_from_u64(1)).unwrap()
}

fn verifier(keys: impl Into<KeySet>) -> JwtVerifier {
    JwtVerifier::new(keys.into(), JwtVerifierConfig::default())
}

/// A token that says anything, signed.
fn forged(signer: &JwtSigningKey, header: &Value, claims: &Value) -> String {
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

fn pubkey() -> String {
    SigningKey::from_pem(P256[0]).unwrap().public_key().to_base64()
}

/// Claims that are good but for what is replaced; `null` takes a claim out.
fn claims(replaced: Value) -> Value {
    let mut claims = json!({ "sub": "alice", "exp": NOW + 60, "pubkey": pubkey() });
    for (name, value) in replaced.as_object().unwrap() {
        let object = claims.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// What a verifier says to such claims.
fn judged(config: JwtVerifierConfig, replaced: Value) -> Result<Claims, VerifyError> {
    let token = forged(&signer(Algorithm::EdDsa), &json!({ "alg": "EdDSA" }), &claims(replaced));
    JwtVerifier::new(public(Algorithm::EdDsa).into(), config).verify(&token, NOW)
}

#[test]
fn each_algorithm_signs_and_verifies() {
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        let mut config = JwtIdentityConfig::new("org/ns/alice");
        config.issuer = Some("https://issuer.example".into());
        config.audience = vec!["slim".into(), "other".into()];
        config.duration = 600;
        let alice = JwtIdentity::new(signer(algorithm), config).unwrap();
        let config = JwtVerifierConfig {
            audience: vec!["slim".into()],
            issuer: Some("https://issuer.example".into()),
            require_issuer: true,
            require_audience: true,
            require_subject: true,
            ..Default::default()
        };
        for key in [public(algorithm), alice.verifying_key()] {
            let verifier = JwtVerifier::new(key.into(), config.clone());
            let claims = verifier.verify(&token(&alice, NOW), NOW).unwrap();
            let expected = Claims {
                subject: "org/ns/alice".into(),
                public_key: alice.key().public_key().clone(),
                issued_at: Some(NOW),
                expires_at: NOW + 600 + 60,
                issuer: Some("https://issuer.example".into()),
            };
            assert_eq!(claims, expected, "{algorithm}");
            assert_eq!(verifier.tells_apart(), algorithm.family() != Family::Secret);
        }
        // Another key of the same kind, and any key of another algorithm, do not do.
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            let refused = verifier(public(other)).verify(&token(&alice, NOW), NOW);
            let found = Shown::new(algorithm.as_str());
            assert_eq!(refused, Err(VerifyError::Algorithm { found, expected: other }));
        }
    }
}

#[test]
fn the_layout_of_a_token() {
    let mut config = JwtIdentityConfig::new("alice");
    config.audience = vec!["slim".into()];
    let alice = JwtIdentity::new(signer(Algorithm::Es256), config).unwrap();
    let token = token(&alice, NOW);
    let parts: Vec<Value> = token
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    assert_eq!(parts[0], json!({ "typ": "JWT", "alg": "ES256", "kid": "alice" }));
    let expected = json!({
        "sub": "alice", "aud": ["slim"], "exp": NOW + 3600, "iat": NOW, "nbf": NOW,
        "pubkey": alice.key().public_key().to_base64(),
    });
    assert_eq!(parts[1], expected);
}

#[test]
fn a_token_is_used_for_a_quarter_of_its_life() {
    let alice =
        JwtIdentity::new(signer(Algorithm::Es256), JwtIdentityConfig::new("alice")).unwrap();
    let first = token(&alice, NOW);
    assert_eq!(token(&alice, NOW + 899), first);
    let second = token(&alice, NOW + 900);
    assert_ne!(second, first);
    // The clock went back further than that.
    assert_ne!(token(&alice, NOW), second);

    let third = token(&alice, NOW + 10);
    alice.set_signer(signer(Algorithm::EdDsa));
    assert_ne!(token(&alice, NOW + 10), third);
    assert!(verifier(public(Algorithm::EdDsa)).verify(&token(&alice, NOW + 10), NOW).is_ok());
}

#[test]
fn what_an_identity_needs() {
    let new = |config| JwtIdentity::new(signer(Algorithm::EdDsa), config).map(|_| ());
    assert_eq!(new(JwtIdentityConfig::new("")), Err(JwtIdentityError::NoSubject));
    let config = JwtIdentityConfig { duration: 0, ..JwtIdentityConfig::new("a") };
    assert_eq!(new(config), Err(JwtIdentityError::NoDuration));
}

/// RFC 7515 appendix A.1 to A.3, RFC 8037 appendix A.4.
#[test]
fn known_answers() {
    let jwk = |json: Value| serde_json::from_value::<Jwk>(json).unwrap().key(None).unwrap();
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let vectors = [
        (
            json!({ "kty": "oct", "alg": "HS256", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" }),
            format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{claims}"),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            json!({ "kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" }),
            format!("eyJhbGciOiJSUzI1NiJ9.{claims}"),
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }),
            format!("eyJhbGciOiJFUzI1NiJ9.{claims}"),
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".to_owned(),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ];
    for (key, signed, signature) in vectors {
        let key = jwk(key);
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(key.verify(signed.as_bytes(), &signature).is_ok(), "{key:?}");
        assert!(key.verify(&signed.as_bytes()[1..], &signature).is_err(), "{key:?}");
    }
}

#[test]
fn forms_of_private_keys() {
    let pair = |algorithm, private: &str, public: &str| {
        let signature = JwtSigningKey::from_pem(algorithm, private).unwrap().sign(b"x").unwrap();
        JwtKey::from_pem(algorithm, public).unwrap().verify(b"x", &signature).unwrap();
    };
    pair(Algorithm::Rs256, include_str!("../../tests/keys/rsa-pkcs1.pem"), RSA[1]);
    let public = include_str!("../../tests/keys/p256-sec1.pub.pem");
    // With its section EC PARAMETERS, as openssl writes it.
    let private = include_str!("../../tests/keys/p256-sec1.pem");
    pair(Algorithm::Es256, private, public);
    assert!(SigningKey::from_pem(private).is_ok());
    for algorithm in [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256] {
        let any = JwtSigningKey::from_any_pem(pems(algorithm)[0]).unwrap();
        assert_eq!(any.algorithm(), algorithm);
    }
    assert!(JwtSigningKey::from_any_pem(SECRET).is_err());
    assert!(SigningKey::from_pem(P384[0]).is_err());
    assert!(SigningKey::from_pem(P256[1]).is_err());
}

#[test]
fn keys_of_another_kind_are_refused_in_words() {
    for algorithm in Algorithm::ALL {
        for other in [RSA, P256, P384, ED] {
            if pems(algorithm) == other {
                continue;
            }
            let error = JwtKey::from_pem(algorithm, other[1]).unwrap_err();
            let words = format!("{algorithm} needs {}", algorithm.family());
            assert_eq!(error.to_string(), words);
            if algorithm.family() != Family::Secret {
                let error = JwtSigningKey::from_pem(algorithm, other[0]).unwrap_err();
                assert_eq!(error.to_string(), words);
            }
        }
    }
    let check = |result: Result<JwtKey, JwtKeyError>, words: &str| {
        assert_eq!(result.unwrap_err().to_string(), words);
    };
    check(JwtKey::from_pem(Algorithm::Rs256, RSA[0]), "no section PUBLIC KEY in the PEM text");
    check(JwtKey::from_pem(Algorithm::Rs256, ""), "no section PUBLIC KEY in the PEM text");
    check(
        JwtKey::from_pem(Algorithm::Rs256, include_str!("../../tests/keys/rsa-1024.pub.pem")),
        "unusable key: RSA keys need 2048 bits",
    );
    check(
        JwtKey::from_pem(Algorithm::Hs256, &SECRET[1..]),
        "a secret of 31 bytes is too short, at least 32 are needed",
    );
    let small = include_str!("../../tests/keys/rsa-1024.pem");
    assert!(JwtSigningKey::from_pem(Algorithm::Rs256, small).is_err());
}

#[test]
fn no_secret_is_printed() {
    let key = signer(Algorithm::Hs256);
    let identity = JwtIdentity::new(signer(Algorithm::Hs256), JwtIdentityConfig::new("a")).unwrap();
    let text = format!("{key:?} {:?} {identity:?}", key.verifying_key());
    assert!(!text.contains(SECRET) && !text.contains("48, 49"), "{text}");
    let made = token(&identity, NOW);
    let text = format!("{identity:?} {:?}", verifier(key.verifying_key()));
    assert!(!text.contains(&made), "{text}");
}

#[test]
fn the_window_of_time() {
    let alice = JwtIdentity::new(
        signer(Algorithm::EdDsa),
        JwtIdentityConfig { duration: 100, ..JwtIdentityConfig::new("alice") },
    )
    .unwrap();
    let (token, verifier) = (token(&alice, NOW), verifier(public(Algorithm::EdDsa)));
    assert!(verifier.verify(&token, NOW + 160).is_ok());
    let expired = verifier.verify(&token, NOW + 161);
    assert_eq!(expired, Err(VerifyError::Expired { ago: 61 }));
    assert_eq!(expired.unwrap_err().to_string(), "the token expired 61 s ago");
    let expired = verifier.verify(&token, NOW + 100 + 180).unwrap_err();
    assert_eq!(expired.to_string(), "the token expired 3 minutes ago");
    assert!(verifier.verify(&token, NOW - 60).is_ok());
    let early = verifier.verify(&token, NOW - 61);
    assert_eq!(early, Err(VerifyError::FromFuture { ahead: 61 }));
    assert_eq!(
        early.unwrap_err().to_string(),
        "the token is from the future: the clock of who made it is 61 s ahead of ours"
    );
    // Age alone is overlooked for credentials that are read late.
    assert_eq!(verifier.authenticate(&token, NOW + 1_000_000).unwrap().expires_at, NOW + 160);
}

#[test]
fn what_exp_may_be() {
    let check = |exp: Value| judged(JwtVerifierConfig::default(), json!({ "exp": exp }));
    assert!(check(json!(NOW)).is_ok());
    assert_eq!(check(json!(NOW as f64 + 0.5)).unwrap().expires_at, NOW + 60);
    assert_eq!(check(Value::Null), Err(VerifyError::Missing("exp")));
    assert_eq!(check(json!(u64::MAX)).unwrap().expires_at, u64::MAX);
    for bad in [json!("9999999999"), json!(-1), json!(1e300), json!([]), json!(true)] {
        assert_eq!(check(bad), Err(VerifyError::Malformed("exp")));
    }
    let nbf = judged(JwtVerifierConfig::default(), json!({ "nbf": u64::MAX }));
    assert_eq!(nbf, Err(VerifyError::FromFuture { ahead: u64::MAX - NOW }));
    let iat = judged(JwtVerifierConfig::default(), json!({ "iat": "x" }));
    assert_eq!(iat, Err(VerifyError::Malformed("iat")));
}

#[test]
fn audiences() {
    let check = |ours: &[&str], theirs: Value| {
        let audience = ours.iter().map(|&one| one.to_owned()).collect();
        let config = JwtVerifierConfig { audience, ..Default::default() };
        judged(config, json!({ "aud": theirs })).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(check(&[], Value::Null), Ok(()));
    assert_eq!(check(&["a"], Value::Null), Ok(()));
    assert_eq!(check(&["a"], json!("a")), Ok(()));
    assert_eq!(check(&["b", "a"], json!(["c", "a"])), Ok(()));
    let refused = |ours: &[&str], theirs: Value, words: &str| {
        assert_eq!(check(ours, theirs), Err(words.to_owned()));
    };
    refused(&["b", "c"], json!("a"), "audience a of the token is not among b, c");
    refused(&["b"], json!(["a", "c"]), "audience a, c of the token is not among b");
    refused(&[], json!("a"), "the token is for audience a, and no audience is configured here");
    refused(&[], json!([]), "the token is for audience \"\", and no audience is configured here");
    for bad in [json!(1), json!(["a", 1]), json!({}), json!([null])] {
        refused(&["a"], bad, "malformed token: aud");
    }
    let config = JwtVerifierConfig { require_audience: true, ..Default::default() };
    assert_eq!(judged(config, json!({})), Err(VerifyError::Missing("aud")));
}

#[test]
fn issuers_and_subjects() {
    let config = || JwtVerifierConfig { issuer: Some("y".into()), ..Default::default() };
    assert!(judged(config(), json!({})).is_ok());
    assert_eq!(judged(config(), json!({ "iss": "y" })).unwrap().issuer.as_deref(), Some("y"));
    let refused = judged(config(), json!({ "iss": "x" })).unwrap_err();
    assert_eq!(refused.to_string(), "the token is issued by x, expected y");
    let required = JwtVerifierConfig { require_issuer: true, ..Default::default() };
    assert_eq!(judged(required, json!({})), Err(VerifyError::Missing("iss")));
    assert_eq!(judged(config(), json!({ "iss": 7 })), Err(VerifyError::Malformed("iss")));

    let anything = JwtVerifierConfig::default;
    for sub in [Value::Null, json!(7), json!(""), json!(["alice"])] {
        assert_eq!(judged(anything(), json!({ "sub": sub })), Err(VerifyError::Missing("sub")));
    }
    let by_id = json!({ "sub": null, "id": "bob" });
    assert_eq!(judged(anything(), by_id.clone()).unwrap().subject, "bob");
    let required = JwtVerifierConfig { require_subject: true, ..Default::default() };
    assert_eq!(judged(required, by_id), Err(VerifyError::Missing("sub")));
}

#[test]
fn a_bearers_token_is_none_of_messages() {
    let config = JwtVerifierConfig { audience: vec!["slim".into()], ..Default::default() };
    let verifier = JwtVerifier::new(public(Algorithm::EdDsa).into(), config);
    let judged = |replaced: Value| {
        let token =
            forged(&signer(Algorithm::EdDsa), &json!({ "alg": "EdDSA" }), &claims(replaced));
        verifier.verify_bearer(&token, NOW)
    };
    let good = judged(json!({ "pubkey": null, "iss": "i", "iat": NOW })).unwrap();
    let (issuer, issued_at) = (Some("i".to_owned()), Some(NOW));
    let expected =
        Bearer { subject: "alice".to_owned(), issuer, issued_at, expires_at: NOW + 60 + 60 };
    assert_eq!(good, expected);
    let brought = json!({ "pubkey": null, "aud": ["slim", "slim-claims:e30="] });
    let inside = json!({ "pubkey": null, "custom_claims": { "pubkey": pubkey() } });
    for of_messages in [json!({}), brought, inside, json!({ "pubkey": "AAAA" })] {
        assert_eq!(judged(of_messages), Err(VerifyError::OfMessages));
    }
    let late = judged(json!({ "pubkey": null, "exp": NOW - 61 }));
    assert_eq!(late, Err(VerifyError::Expired { ago: 61 }));
    let other = judged(json!({ "pubkey": null, "aud": "other" }));
    assert!(matches!(other, Err(VerifyError::Audience { .. })), "{other:?}");

    // Whoever demands an audience can tell by that.
    let audience = vec!["nodes".to_owned()];
    let config = JwtVerifierConfig { audience, require_audience: true, ..Default::default() };
    let strict = JwtVerifier::new(public(Algorithm::EdDsa).into(), config);
    let judged = |audience: Value| {
        let claims = claims(json!({ "aud": audience }));
        strict.verify_bearer(
            &forged(&signer(Algorithm::EdDsa), &json!({ "alg": "EdDSA" }), &claims),
            NOW,
        )
    };
    assert_eq!(judged(json!("nodes")).unwrap().subject, "alice");
    assert!(matches!(judged(json!("slim")), Err(VerifyError::Audience { .. })));
    assert_eq!(judged(json!(["nodes", "slim-claims:e30="])), Err(VerifyError::OfMessages));

    let own = JwtIdentityConfig { audience: vec!["slim".into()], ..JwtIdentityConfig::new("me") };
    let signed = own.bearer(&signer(Algorithm::EdDsa), NOW).unwrap();
    assert_eq!(verifier.verify_bearer(&signed, NOW).unwrap().subject, "me");
    // And in a message it is worth nothing.
    assert_eq!(verifier.verify(&signed, NOW), Err(VerifyError::NoPublicKey));
}

#[test]
fn where_the_public_key_is() {
    let check =
        |replaced| judged(JwtVerifierConfig::default(), replaced).map(|c| c.public_key.to_base64());
    assert_eq!(check(json!({})), Ok(pubkey()));
    let inside = json!({ "pubkey": null, "custom_claims": { "pubkey": pubkey() } });
    assert_eq!(check(inside), Ok(pubkey()));
    for none in [json!(null), json!(7)] {
        assert_eq!(check(json!({ "pubkey": none })), Err(VerifyError::NoPublicKey));
    }
    let bad = check(json!({ "pubkey": "AAAA" })).unwrap_err();
    assert_eq!(bad, VerifyError::PublicKey(PublicKeyError::Length(3)));

    let audience =
        format!("slim-claims:{}", STANDARD.encode(json!({ "pubkey": pubkey() }).to_string()));
    let brought = json!({ "pubkey": null, "aud": ["slim", audience] });
    let config = |claims_in_audience| JwtVerifierConfig {
        audience: vec!["slim".into()],
        claims_in_audience,
        ..Default::default()
    };
    let claims = judged(config(true), brought.clone()).unwrap();
    assert_eq!(claims.public_key.to_base64(), pubkey());
    // Only where issuers are known to guard it.
    assert_eq!(judged(config(false), brought), Err(VerifyError::NoPublicKey));
    let odd = json!({ "aud": ["slim", "slim-claims:?", "slim-claims:e30="] });
    assert_eq!(judged(config(true), odd).unwrap().public_key.to_base64(), pubkey());
    let only = json!({ "aud": [audience] });
    assert!(matches!(judged(config(true), only), Err(VerifyError::Audience { .. })));
}

#[test]
fn a_key_set_chooses_by_id() {
    let keys: KeySet = [
        public(Algorithm::EdDsa).with_id("ed"),
        public(Algorithm::Es256).with_id("ec"),
        public(Algorithm::Rs256).with_id("rsa"),
    ]
    .into_iter()
    .collect();
    let check = |algorithm: Algorithm, header: Value| {
        let token = forged(&signer(algorithm), &header, &claims(json!({})));
        verifier(keys.clone()).verify(&token, NOW).map(|_| ()).map_err(|error| error.to_string())
    };
    let ok = |algorithm, header| assert_eq!(check(algorithm, header), Ok(()));
    let refused = |algorithm, header: Value, words: &str| {
        assert_eq!(check(algorithm, header), Err(words.to_owned()));
    };
    ok(Algorithm::EdDsa, json!({ "alg": "EdDSA", "kid": "ed" }));
    ok(Algorithm::Rs256, json!({ "alg": "RS256", "kid": "rsa" }));
    // Without an id, or with one that nobody knows, those of the algorithm are tried.
    ok(Algorithm::Es256, json!({ "alg": "ES256" }));
    ok(Algorithm::Es256, json!({ "alg": "ES256", "kid": "new" }));
    // A known id means that key and no other.
    refused(
        Algorithm::Es256,
        json!({ "alg": "ES256", "kid": "ed" }),
        "the token is signed with ES256, its key is for EdDSA",
    );
    let other = JwtSigningKey::from_pem(Algorithm::EdDsa, &new_did_pem().unwrap()).unwrap();
    let stranger = |header: Value| {
        let token = forged(&other, &header, &claims(json!({})));
        verifier(keys.clone()).verify(&token, NOW).unwrap_err().to_string()
    };
    assert_eq!(
        stranger(json!({ "alg": "EdDSA", "kid": "ed" })),
        "the signature of the token is not that of key id ed"
    );
    assert_eq!(stranger(json!({ "alg": "EdDSA", "kid": "k" })), "key id k of the token is unknown");
    assert_eq!(
        stranger(json!({ "alg": "EdDSA" })),
        "the signature of the token is not that of a key that we know"
    );
}

/// A token that is signed with what everybody knows, the public key, as if that were
/// a shared secret.
#[test]
fn a_public_key_is_no_secret() {
    let mallory = JwtSigningKey::from_pem(Algorithm::Hs256, RSA[1]).unwrap();
    for kid in [json!({ "alg": "HS256" }), json!({ "alg": "HS256", "kid": "rsa" })] {
        let token = forged(&mallory, &kid, &claims(json!({})));
        for key in [public(Algorithm::Rs256), public(Algorithm::Rs256).with_id("rsa")] {
            let refused = verifier(key).verify(&token, NOW);
            let (found, expected) = (Shown::new("HS256"), Algorithm::Rs256);
            assert_eq!(refused, Err(VerifyError::Algorithm { found, expected }));
        }
    }
    assert!(JwtKey::from_pem(Algorithm::Hs256, RSA[1]).is_err());
}

#[test]
fn a_token_cannot_choose_to_be_unsigned() {
    let claims = URL_SAFE_NO_PAD.encode(claims(json!({})).to_string());
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256", "EdDSA "] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
        for signature in ["", "AA"] {
            let token = format!("{header}.{claims}.{signature}");
            let refused = verifier(public(Algorithm::EdDsa)).verify(&token, NOW);
            assert!(matches!(refused, Err(VerifyError::Algorithm { .. })), "{alg}: {refused:?}");
        }
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#);
    let refused = verifier(public(Algorithm::EdDsa)).verify(&format!("{header}.{claims}."), NOW);
    assert_eq!(refused, Err(VerifyError::BadSignature { key_id: None }));
}

#[test]
fn malformed_tokens() {
    let verifier = verifier(public(Algorithm::EdDsa));
    let check = |token: &str, fault| {
        assert_eq!(verifier.verify(token, NOW), Err(VerifyError::Malformed(fault)), "{token:.80}");
    };
    check("", "parts");
    check("a", "parts");
    check("a.b", "parts");
    check("a.b.c.d", "parts");
    let other = verifier.verify("org/ns/a_12345678:1:n:c:m", NOW).unwrap_err().to_string();
    assert_eq!(other, "the token is one of a shared secret, expected a JSON Web Token");
    check("..", "header");
    check("!.e30.", "header");
    check("e30.e30.", "header");
    let good = token(
        &JwtIdentity::new(signer(Algorithm::EdDsa), JwtIdentityConfig::new("alice")).unwrap(),
        NOW,
    );
    let (header, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    assert!(verifier.verify(&good, NOW).is_ok());
    check(&format!("{header}.W10.{signature}"), "claims");
    check(&format!("{header}.{body}=.{signature}"), "claims");
    check(&format!("{header}.{body}.{signature}="), "signature");
    check(&format!("{good}\n"), "signature");
    check(&format!(" {good}"), "header");
    check(&format!("{header}.{body}.{}", "A".repeat(MAX_TOKEN)), "length");
    let header = json!({ "alg": "EdDSA", "crit": ["b64"], "b64": false });
    check(&forged(&signer(Algorithm::EdDsa), &header, &claims(json!({}))), "header: crit");
    let header = json!({ "alg": "EdDSA", "kid": 7 });
    check(&forged(&signer(Algorithm::EdDsa), &header, &claims(json!({}))), "header");
}

#[test]
fn what_a_stranger_writes_cannot_fill_a_terminal() {
    let header = json!({ "alg": "EdDSA", "kid": format!("\u{1b}[2J{}", "x".repeat(5000)) });
    let other = JwtSigningKey::from_pem(Algorithm::EdDsa, &new_did_pem().unwrap()).unwrap();
    let token = forged(&other, &header, &claims(json!({})));
    let keys: KeySet = [public(Algorithm::EdDsa).with_id("a")].into_iter().collect();
    let words = verifier(keys).verify(&token, NOW).unwrap_err().to_string();
    assert!(words.len() < 300 && !words.contains('\u{1b}'), "{words}");
}

#[test]
fn documents_with_keys() {
    let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let with = |member: &str, value: Value| {
        let mut key = ed.clone();
        key[member] = value;
        key
    };
    let jwk = |key: &Value, algorithm| {
        let set = KeySet::from_jwk(&key.to_string(), algorithm)?;
        Ok::<_, JwtKeyError>(set.iter().next().unwrap().algorithm())
    };
    assert_eq!(jwk(&ed, None), Ok(Algorithm::EdDsa));
    assert_eq!(jwk(&ed, Some(Algorithm::EdDsa)), Ok(Algorithm::EdDsa));
    let words = |result: Result<Algorithm, JwtKeyError>| result.unwrap_err().to_string();
    assert_eq!(words(jwk(&ed, Some(Algorithm::Rs256))), "RS256 needs an RSA key");
    assert_eq!(
        words(jwk(&with("alg", json!("EdDSA")), Some(Algorithm::Es256))),
        "the JWK is for EdDSA, not for ES256"
    );
    assert_eq!(words(jwk(&with("alg", json!("RS256")), None)), "RS256 needs an RSA key");
    assert_eq!(words(jwk(&with("alg", json!("none")), None)), "unknown algorithm none in the JWK");
    assert_eq!(words(jwk(&with("use", json!("enc")), None)), "the JWK is for the use enc, not sig");
    assert_eq!(words(jwk(&with("x", json!("AAAA")), None)), "unusable key: not an Ed25519 key");
    assert_eq!(
        words(jwk(&with("x", json!("?")), None)),
        "member x of the JWK is missing or malformed"
    );
    assert_eq!(
        words(jwk(&json!({ "kty": "oct", "k": "AAAA" }), None)),
        "the JWK names no algorithm"
    );
    assert_eq!(
        words(jwk(&json!({ "kty": "oct", "k": "AAAA", "alg": "HS256" }), None)),
        "a secret of 3 bytes is too short, at least 32 are needed"
    );
    let off = json!({ "kty": "EC", "crv": "P-256", "x": "A".repeat(43), "y": "A".repeat(43) });
    assert_eq!(words(jwk(&off, None)), "unusable key: not a P-256 key");

    let set = json!({ "keys": [
        with("use", json!("enc")), with("kid", json!("a")), { "kty": "mystery" }, 7,
        with("alg", json!("ES256K")),
    ] });
    let set = KeySet::from_jwks(&set.to_string()).unwrap();
    assert_eq!((set.len(), set.get("a").is_some()), (1, true));
    let empty = |text: &str| KeySet::from_jwks(text).unwrap_err().to_string();
    assert_eq!(empty(r#"{"keys":[]}"#), "no usable key in the set");
    assert_eq!(
        empty(&json!({ "keys": [with("use", json!("enc"))] }).to_string()),
        "no usable key in the set: the JWK is for the use enc, not sig"
    );
    assert_eq!(empty("[]"), "not the JSON of a JWKS");
    assert_eq!(empty(&" ".repeat(KeySet::MAX_DOCUMENT + 1)), "more than 1048576 bytes");
}

#[test]
fn keys_are_the_same_in_pem_and_in_a_jwks() {
    let set = KeySet::from_jwks(include_str!("../../tests/keys/jwks.json")).unwrap();
    for (id, algorithm) in [
        ("rsa", Algorithm::Rs256),
        ("p256", Algorithm::Es256),
        ("p384", Algorithm::Es384),
        ("ed25519", Algorithm::EdDsa),
    ] {
        let header = json!({ "alg": algorithm.as_str(), "kid": id });
        let token = forged(&signer(algorithm), &header, &claims(json!({})));
        assert!(verifier(set.clone()).verify(&token, NOW).is_ok(), "{id}");
    }
}

#[test]
fn a_key_of_a_trust_domain_speaks_for_no_other() {
    let jwks = |pem: &str| {
        let key = JwtKey::from_pem(Algorithm::EdDsa, pem).unwrap().ed25519().unwrap();
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(key), "use": "jwt-svid", "kid": "k" });
        STANDARD.encode(json!({ "keys": [jwk] }).to_string())
    };
    let bundle = json!({ "example.org": jwks(ED[1]) }).to_string();
    let verifier = verifier(KeySet::from_trust_bundle(&bundle).unwrap());
    let check = |subject: &str| {
        let header = json!({ "alg": "EdDSA", "kid": "k" });
        let token = forged(&signer(Algorithm::EdDsa), &header, &claims(json!({ "sub": subject })));
        verifier.verify(&token, NOW).map(|claims| claims.subject).map_err(|e| e.to_string())
    };
    for fine in ["spiffe://example.org/a", "spiffe://example.org", "alice"] {
        assert_eq!(check(fine), Ok(fine.to_owned()));
    }
    for foreign in ["spiffe://example.com/a", "spiffe://example.org.evil/a", "spiffe://"] {
        let words = format!("the token is for {foreign}, and signed with the key of example.org");
        assert_eq!(check(foreign), Err(words));
    }
    for bad in ["{}", "[]", r#"{"a":"?"}"#, r#"{"a":"e30="}"#, r#"{"a":1}"#] {
        assert!(KeySet::from_trust_bundle(bad).is_err(), "{bad}");
    }
}

/// Federated domains choose the ids of their keys, and whom they would like to speak for.
#[test]
fn trust_domains_do_not_disturb_each_other() {
    let jwks = |algorithm: Algorithm| {
        let jwk = public(algorithm).with_id("k").to_jwk().unwrap();
        json!({ "keys": [jwk] }).to_string()
    };
    let mut keys = KeySet::from_domain("a.example", &jwks(Algorithm::Es256)).unwrap();
    keys.extend(KeySet::from_domain("b.example", &jwks(Algorithm::EdDsa)).unwrap());
    let config = JwtVerifierConfig { require_spiffe_id: true, ..Default::default() };
    let strict = JwtVerifier::new(keys, config.clone());
    let check = |verifier: &JwtVerifier, algorithm: Algorithm, subject: &str| {
        let header = json!({ "alg": algorithm.as_str(), "kid": "k" });
        let token = forged(&signer(algorithm), &header, &claims(json!({ "sub": subject })));
        verifier.verify(&token, NOW).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(check(&strict, Algorithm::Es256, "spiffe://a.example/x"), Ok(()));
    assert_eq!(check(&strict, Algorithm::EdDsa, "spiffe://b.example/x"), Ok(()));
    for (algorithm, subject, words) in [
        // With a key id that is known in either.
        (Algorithm::EdDsa, "spiffe://a.example/x", "signed with EdDSA, its key is for ES256"),
        (Algorithm::Es256, "alice", "the token is for alice, and signed with the key of a.example"),
        (Algorithm::Es256, "spiffe://c.example/x", "and signed with the key of a.example"),
        (Algorithm::Es256, "spiffe://", "and signed with the key of a.example"),
    ] {
        let said = check(&strict, algorithm, subject).unwrap_err();
        assert!(said.contains(words), "{subject}: {said}");
    }
    let anybodys = JwtVerifier::new(public(Algorithm::EdDsa).with_id("k").into(), config);
    for subject in ["alice", "spiffe://a.example/x"] {
        let said = check(&anybodys, Algorithm::EdDsa, subject).unwrap_err();
        assert!(said.contains("signed with the key of no trust domain"), "{said}");
    }
}

/// What is written is read as the same key.
#[test]
fn keys_are_written_as_a_jwk() {
    for algorithm in Algorithm::ALL {
        for key in [public(algorithm), signer(algorithm).verifying_key()] {
            let Some(jwk) = key.clone().with_id("me").to_jwk() else {
                assert_eq!(algorithm.family(), Family::Secret);
                continue;
            };
            assert!(jwk.get("d").is_none() && jwk.get("k").is_none());
            let set = KeySet::from_jwk(&jwk.to_string(), None).unwrap();
            let header = json!({ "alg": algorithm.as_str(), "kid": "me" });
            let token = forged(&signer(algorithm), &header, &claims(json!({})));
            assert!(verifier(set).verify(&token, NOW).is_ok(), "{algorithm}");
        }
        if algorithm.family() != Family::Secret {
            let own = signer(algorithm).verifying_key().to_jwk();
            assert_eq!(own, public(algorithm).to_jwk(), "{algorithm}");
        }
    }
}

#[test]
fn keys_by_issuer() {
    let (woken, calls) = std::sync::mpsc::channel();
    let issuers = ["https://a.example".to_owned(), "https://b.example".to_owned()];
    let verifier = JwtVerifier::by_issuer(issuers, JwtVerifierConfig::default())
        .when_unknown(move || woken.send(()).unwrap());
    let token = |issuer: Value, kid: &str| {
        let header = json!({ "alg": "EdDSA", "kid": kid });
        forged(&signer(Algorithm::EdDsa), &header, &claims(json!({ "iss": issuer })))
    };
    let check = |issuer: Value, kid| {
        let refused = verifier.verify(&token(issuer, kid), NOW);
        refused.map(|_| ()).map_err(|error| error.to_string())
    };
    let refused = |words: &str| Err(words.to_owned());
    assert_eq!(check(Value::Null, "k"), refused("the token has no claim iss"));
    assert_eq!(
        check(json!("https://c.example"), "k"),
        refused(
            "the token is issued by https://c.example, expected https://a.example, https://b.example"
        )
    );
    assert_eq!(calls.try_iter().count(), 0, "nobody fetches what a stranger names");
    assert_eq!(
        check(json!("https://a.example"), "k"),
        refused("the keys of issuer https://a.example are not at hand")
    );
    assert_eq!(calls.try_iter().count(), 1);
    let key = public(Algorithm::EdDsa).with_id("k");
    verifier.set_issuer_keys("https://a.example", key.clone().into());
    verifier.set_issuer_keys("https://c.example", key.into());
    assert_eq!(check(json!("https://a.example"), "k"), Ok(()));
    assert!(check(json!("https://b.example"), "k").is_err());
    assert!(check(json!("https://c.example"), "k").is_err());
    calls.try_iter().for_each(drop);
    let other = JwtSigningKey::from_pem(Algorithm::EdDsa, &new_did_pem().unwrap()).unwrap();
    let header = json!({ "alg": "EdDSA", "kid": "rotated" });
    let rotated = forged(&other, &header, &claims(json!({ "iss": "https://a.example" })));
    let unknown = verifier.verify(&rotated, NOW);
    assert_eq!(unknown, Err(VerifyError::UnknownKey(Shown::new("rotated"))));
    assert_eq!(calls.try_iter().count(), 1);
}

#[test]
fn a_did_speaks_for_itself_only() {
    let pems = [new_did_pem().unwrap(), new_did_pem().unwrap()];
    let [alice, bob] = pems.each_ref().map(|pem| JwtIdentity::did(pem, Vec::new()).unwrap());
    assert!(alice.subject().starts_with("did:key:z6Mk"));
    let keys: KeySet = [alice.verifying_key(), bob.verifying_key()].into_iter().collect();
    let config = JwtVerifierConfig { subject_is_key: true, ..Default::default() };
    let verifier = JwtVerifier::new(keys.clone(), config.clone());
    for one in [&alice, &bob] {
        let claims = verifier.verify(&token(one, NOW), NOW).unwrap();
        assert_eq!(claims.subject, one.subject());
        assert_eq!(claims.issuer.as_deref(), Some(one.subject()));
    }
    // Bob says that he is Alice.
    let signer = JwtSigningKey::from_pem(Algorithm::EdDsa, &pems[1]).unwrap();
    let mut thief = JwtIdentityConfig::new(alice.subject());
    thief.issuer = Some(alice.subject().into());
    let thief = token(&JwtIdentity::new(signer, thief).unwrap(), NOW);
    assert!(matches!(verifier.verify(&thief, NOW), Err(VerifyError::BadSignature { .. })));
    let signer = JwtSigningKey::from_pem(Algorithm::EdDsa, &pems[1]).unwrap();
    for kid in [json!(bob.subject()), Value::Null, json!("else")] {
        let header = json!({ "alg": "EdDSA", "kid": kid });
        let token = forged(&signer, &header, &claims(json!({ "sub": alice.subject() })));
        let refused = verifier.verify(&token, NOW);
        let expected = VerifyError::ForeignSubject {
            subject: Shown::new(alice.subject()),
            key: Shown::new(bob.subject()),
        };
        assert_eq!(refused, Err(expected));
    }
    // The did counts, whatever id the key has in the set.
    let renamed = keys.iter().map(|key| JwtKey::from_ed25519(key.ed25519().unwrap()));
    let verifier = JwtVerifier::new(renamed.collect(), config);
    assert!(verifier.verify(&token(&alice, NOW), NOW).is_ok());
    assert!(JwtIdentity::did(P256[0], Vec::new()).is_err());
    assert_eq!(did_key(&alice.verifying_key().ed25519().unwrap()), alice.subject());
}

#[test]
fn a_token_from_elsewhere() {
    let key = SigningKey::from_pem(P256[0]).unwrap();
    let made = |replaced: Value| {
        forged(&signer(Algorithm::Rs256), &json!({ "alg": "RS256" }), &claims(replaced))
    };
    let new = |replaced: Value| TokenIdentity::new(&made(replaced), key.clone());
    let first = made(json!({}));
    let identity = TokenIdentity::new(&format!("\n{first} \n"), key.clone()).unwrap();
    assert_eq!((identity.subject(), identity.key().public_key()), ("alice", key.public_key()));
    let token = |now| identity.token(now, &mut SmallRng::seed_from_u64(1));
    assert_eq!(token(NOW), Ok(first.clone()));
    assert_eq!(token(NOW + 120), Ok(first.clone()));
    assert!(verifier(public(Algorithm::Rs256)).verify(&first, NOW).is_ok());
    assert_eq!(
        token(NOW + 60 + 180),
        Err(TokenError::Unavailable("ours expired 3 minutes ago".into()))
    );

    let second = made(json!({ "exp": NOW + 1000 }));
    identity.set_token(&second).unwrap();
    assert_eq!(token(NOW + 240), Ok(second.clone()));
    let words = |result: Result<(), TokenIdentityError>| result.unwrap_err().to_string();
    assert_eq!(
        words(identity.set_token(&made(json!({ "sub": "bob" })))),
        "the token is for bob, not for alice"
    );
    assert_eq!(words(identity.set_token("")), "malformed token: parts");
    assert_eq!(token(NOW + 240), Ok(second));

    assert_eq!(
        words(new(json!({ "pubkey": null })).map(|_| ())),
        format!("the token has no claim pubkey: its issuer must put \"{}\" there", pubkey())
    );
    let other = SigningKey::generate().unwrap().public_key().to_base64();
    assert_eq!(
        words(new(json!({ "pubkey": other })).map(|_| ())),
        format!("the claim pubkey of the token, {other}, is not that of our key")
    );
    assert_eq!(words(new(json!({ "exp": null })).map(|_| ())), "the token has no claim exp");
    let audience =
        format!("slim-claims:{}", STANDARD.encode(json!({ "pubkey": pubkey() }).to_string()));
    assert!(new(json!({ "pubkey": null, "aud": ["slim", audience] })).is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_verify_panic(text in ".*", now: u64) {
        prop_assert!(verifier(public(Algorithm::EdDsa)).verify(&text, now).is_err());
    }

    #[test]
    fn no_parts_make_verify_panic(header in ".*", body in ".*", kid: Option<String>, now: u64) {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let verifier = verifier(public(Algorithm::EdDsa).with_id("a"));
        let token = format!("{}.{}.", encode(&header), encode(&body));
        prop_assert!(verifier.verify(&token, now).is_err());
        let header = json!({ "alg": "EdDSA", "kid": kid });
        let signed = format!("{}.{}", encode(&header.to_string()), encode(&body));
        let signature = signer(Algorithm::EdDsa).sign(signed.as_bytes()).unwrap();
        verifier.verify(&format!("{signed}.{}", encode_bytes(&signature)), now).ok();
    }

    #[test]
    fn an_altered_token_never_verifies(at in any::<prop::sample::Index>(), new in "[A-Za-z0-9._-]") {
        let alice = JwtIdentity::new(signer(Algorithm::Es256), JwtIdentityConfig::new("alice")).unwrap();
        let token = token(&alice, NOW);
        let at = at.index(token.len());
        let altered = [&token[..at], &new, &token[at + 1..]].concat();
        prop_assume!(altered != token);
        prop_assert!(verifier(public(Algorithm::Es256)).verify(&altered, NOW).is_err());
    }

    #[test]
    fn no_key_text_makes_reading_panic(text in ".*", kty in "RSA|EC|OKP|oct", crv in "P-256|P-384|Ed25519", x in "[A-Za-z0-9_-]{0,90}") {
        for algorithm in Algorithm::ALL {
            JwtKey::from_pem(algorithm, &text).ok();
            JwtSigningKey::from_pem(algorithm, &text).ok();
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&text));
            JwtKey::from_pem(algorithm, &pem).ok();
            JwtSigningKey::from_pem(algorithm, &pem.replace("PUBLIC", "PRIVATE")).ok();
        }
        KeySet::from_jwks(&text).ok();
        KeySet::from_trust_bundle(&text).ok();
        let jwk = json!({ "kty": kty, "crv": crv, "x": x, "y": x, "n": x, "e": x, "k": x });
        if let Ok(set) = KeySet::from_jwk(&jwk.to_string(), None) {
            let key = set.iter().next().unwrap();
            prop_assert!(key.algorithm() == Algorithm::EdDsa || key.verify(b"a", b"b").is_err());
        }
    }
}

fn encode_bytes(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

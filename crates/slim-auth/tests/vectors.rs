//! Tokens and signatures seen on the wire of an existing deployment.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::{SeedableRng as _, rngs::SmallRng};
use ring::digest::{SHA256, digest};
use slim_auth::{BadSignature, Claims, PublicKey, SharedSecret, Verifier, VerifyError};

const SECRET: &str = "0123456789abcdef0123456789abcdef0123";

/// One signed control message: who sent it and what was signed.
struct Signed {
    token: &'static str,
    issued_at: u64,
    subject: &'static str,
    /// The header as it is authenticated, in hexadecimal.
    header: &'static str,
    header_signature: &'static str,
    /// The encoded content of the message, which has no metadata.
    content: &'static str,
    /// In base64, as it travels.
    payload_signature: &'static str,
}

/// An acknowledgement from a participant.
const GROUP_ACK: Signed = Signed {
    token: "org/trace/alice_7ZaqQOgB:1795329992:oeHpV7mSapsIuLsv:eyJwdWJrZXkiOiJCR0NudTNwM1R2dWRISk1QUy8\
        xelJ5VTN3NUR0MENZbTJKSjl6MWI3b0xUcWpHYXJLYUZQREtiUjMrL2RFdi9DZlpzQ1lCRjVWbS8xSjJjcXo3YkYycTg\
        9In0:Nsf--SPYV0oR1zhbkY9TrA1mb7ZeoUsgO5Z4ZERvwHk",
    issued_at: 1_795_329_992,
    subject: "org/trace/alice_7ZaqQOgB",
    header: "0801124d0a3608bbacaab7b780969f8701109d87bbe3d09cdf993c1882e3daadfa91afc87b2215088c8cd49fbffb\
        dd8a6510f2eb9dc299e9a6c59d0112130a036f7267120574726163651a05616c6963651a4c0a3708bbacaab7b780\
        969f8701109d87bbe3d09cdf993c1880c184b8eac3ab9be80122150886f883b2f5bb87cd181085e999bbc9e2f5c9\
        810112110a036f7267120574726163651a036d6f6422e8016f72672f74726163652f616c6963655f375a6171514f\
        67423a313739353332393938383a33496a4675612d70676e615761776a693a65794a7764574a725a586b694f694a\
        4352304e7564544e774d31523264575249536b315155793878656c4a3556544e334e5552304d454e5a62544a4b53\
        6a6c364d574933623078556357704859584a4c59555a5152457469556a4d724c325246646939445a6c707a51316c\
        43526a565762533878536a4a6a63586f33596b597963546739496e303a6e4143786367573143325a4951767a6839\
        6f377a6c723378684843443248316246304d7469597a4d7767672801300f38a5f7d8be0440f493a68409",
    header_signature: "3045022100a2fedcad1daaf0f8bcbfc7b06e6cf8fdfb17afd8efc7f3b34f521b89998c568502205ec033b748f8bb\
        462727183c2207719f92986d2e6ae6ad02383eeb1cc6c79e41",
    content: "12025a00",
    payload_signature: "MEUCIQDAQqb5J3TbaOICcH9mGOjHRImXigz492VbD5HODiobuwIgfSY+0VNsBMu9yLvk9+n9qQ2qKytHb5rGcAOWf8yn\
        QvA=",
};

/// The first message of an invitation.
const DISCOVERY_REQUEST: Signed = Signed {
    token: "org/trace/mod_ePlB6BaZ:1795329932:j0YeuNQv-p_SLyvD:eyJwdWJrZXkiOiJCR3dMa3BBZGUvMGFDQjliVG5IM\
        VFmTTc4UDM0eDRmbVhVR1hWbktEZGJLL3VpUEJqU3ZNd3QvMllMRldEcUR0UWk4MkxDZWlocS9Md3ZXZC8vUm5nelU9I\
        n0:sDN6dg0ggXuvn7JRQzfNiy-HeUlwmWacCCOCd5DDUmU",
    issued_at: 1_795_329_932,
    subject: "org/trace/mod_ePlB6BaZ",
    header: "0801124c0a3708bbacaab7b780969f8701109d87bbe3d09cdf993c1880c184b8eac3ab9be801221508d5fbeef0e9\
        9cc3e7ba0110fb9985e88c96e1e93d12110a036f7267120574726163651a036d6f641a4e0a3708bbacaab7b78096\
        9f8701109d87bbe3d09cdf993c1882e3daadfa91afc87b221608ffffffffffffffffff0110ffffffffffffffffff\
        0112130a036f7267120574726163651a05616c69636522e6016f72672f74726163652f6d6f645f65506c42364261\
        5a3a313739353332393933323a6a305965754e51762d705f534c7976443a65794a7764574a725a586b694f694a43\
        5233644d613342425a4755764d474644516a6c69564735494d56466d5454633455444d306544526d625668565231\
        6857626b74455a474a4c4c33567055454a7155335a4e643351764d6c6c4d526c64456355523055576b344d6b7844\
        5a576c6f6353394d64335a585a433876556d356e656c5539496e303a73444e3664673067675875766e374a52517a\
        664e69792d4865556c776d57616343434f4364354444556d55280130053899c18fd90740b0d087d208",
    header_signature: "304502206e87e018e8b09fc3ff255488b2afc0ebd4521e81793ba1427625bd998176b864022100cac2ba819b4eca\
        e10c230209e35ea991ef82264384df9775aee3579aca69f5f3",
    content: "12020a00",
    payload_signature: "MEYCIQDTQXiHDzAdpws8V4ATqkyhpdbuqgSZc0I8jTsTghElWAIhAKPGR7BojbWjvSrM7dI/gt4hrOkznsE3WmJ4X5SD\
        eqXL",
};

fn claims(message: &Signed) -> Claims {
    let verifier = SharedSecret::new("anybody", SECRET, &mut SmallRng::seed_from_u64(0)).unwrap();
    let claims = verifier.verify(message.token, message.issued_at).unwrap();
    assert_eq!(
        verifier.verify(message.token, message.issued_at + 3601),
        Err(VerifyError::Expired { ago: 1 })
    );
    claims
}

/// What the payload signature covers, for a message without metadata.
fn payload_input(message: &Signed) -> Vec<u8> {
    let mut input = b"slim-payload-v1".to_vec();
    for part in [message.header, message.content] {
        let part = hex::decode(part).unwrap();
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(&part);
    }
    input
}

fn check(message: &Signed) {
    let claims = claims(message);
    assert_eq!(claims.subject, message.subject);
    assert_eq!(claims.issued_at, Some(message.issued_at));
    assert_eq!(claims.expires_at, message.issued_at + 3600);
    assert_eq!(claims.issuer, None);

    let mut header = hex::decode(message.header).unwrap();
    let signature = hex::decode(message.header_signature).unwrap();
    assert_eq!(claims.public_key.verify(&header, &signature), Ok(()));
    header[0] ^= 1;
    assert_eq!(claims.public_key.verify(&header, &signature), Err(BadSignature));

    let mut input = payload_input(message);
    let signature = STANDARD.decode(message.payload_signature).unwrap();
    assert_eq!(claims.public_key.verify(&input, &signature), Ok(()));
    *input.last_mut().unwrap() ^= 1;
    assert_eq!(claims.public_key.verify(&input, &signature), Err(BadSignature));
}

#[test]
fn group_ack() {
    check(&GROUP_ACK);
    let key = "0460a7bb7a774efb9d1c930f4bfd73472537c390edd02626d8927dcf56fba0b4ea8c66ab29a14f0ca6d1dfefdd12\
        ffc27d9b02601179566ff527672acfb6c5daaf";
    assert_eq!(
        claims(&GROUP_ACK).public_key,
        PublicKey::from_bytes(&hex::decode(key).unwrap()).unwrap()
    );
    assert_eq!(
        claims(&GROUP_ACK).public_key.to_base64(),
        "BGCnu3p3TvudHJMPS/1zRyU3w5Dt0CYm2JJ9z1b7oLTqjGarKaFPDKbR3+/dEv/CfZsCYBF5Vm/1J2cqz7bF2q8="
    );
    let input = payload_input(&GROUP_ACK);
    assert_eq!(input.len(), 445);
    assert_eq!(
        hex::encode(digest(&SHA256, &input)),
        "566d988efbce282dc18e870d8ccba435786757a57e9f1ca490bf31f07fce9ea5"
    );
}

#[test]
fn discovery_request() {
    check(&DISCOVERY_REQUEST);
    assert_eq!(payload_input(&DISCOVERY_REQUEST).len(), 444);
}

#[test]
fn a_key_verifies_nobody_elses_message() {
    let header = hex::decode(DISCOVERY_REQUEST.header).unwrap();
    let signature = hex::decode(DISCOVERY_REQUEST.header_signature).unwrap();
    assert_eq!(claims(&GROUP_ACK).public_key.verify(&header, &signature), Err(BadSignature));
}

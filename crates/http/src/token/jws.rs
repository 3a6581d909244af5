//! Signed tokens on the wire: the compact form of JWS (RFC 7515, section 3.1), written and read strictly. Only what
//! this crate writes is read: base64 without padding, one object as header, and no extensions.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{Refusal, TOKEN_BYTES_MAX, key::Key, ring::Ring};

/// The header of a signed token.
#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11): none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

/// Signs a payload with `key`, as a token of the type `kind`.
pub(super) fn sign(key: &Key, kind: &str, payload: &[u8]) -> String {
    let header = serde_json::json!({ "alg": key.algorithm().name(), "kid": key.kid, "typ": kind });
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let mut token = format!("{}.{}", encode(header.to_string().as_bytes()), encode(payload));
    let signature = key.sign(token.as_bytes());
    token.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

/// The payload of a token of the type `kind` that a key of the ring has signed. Nothing of the payload is looked at before
/// the signature was found right.
pub(super) fn verify(ring: &Ring, kind: &str, token: &str) -> Result<Vec<u8>, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(Refusal::Malformed)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Refusal::Malformed)?;
    if header.crit.is_some() {
        return Err(Refusal::Unsupported);
    }
    let key = header.kid.and_then(|kid| ring.key(&kid)).ok_or(Refusal::UnknownKey)?;
    if header.alg != key.algorithm().name() {
        return Err(Refusal::WrongAlgorithm);
    }
    if !key.verifies(message.as_bytes(), &decode(signature)?) {
        return Err(Refusal::BadSignature);
    }
    if !header.typ.is_some_and(|typ| typ.eq_ignore_ascii_case(kind)) {
        return Err(Refusal::WrongType);
    }
    decode(payload)
}

/// Base64 without padding, of which there is one text for each value: other texts for the same bytes are refused.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Algorithm, key::Stored, ring::tests::ring_of};

    fn part(json: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn what_was_signed_is_read() {
        for algorithm in [Algorithm::EdDSA, Algorithm::HS256] {
            let ring = ring_of(vec![Stored::random(algorithm, 0).unwrap()]);
            let token = sign(ring.signer(0).unwrap(), "at+jwt", b"{\"a\":1}");
            assert_eq!(verify(&ring, "at+jwt", &token).as_deref(), Ok(&b"{\"a\":1}"[..]));
            assert_eq!(verify(&ring, "AT+JWT", &token).as_deref(), Ok(&b"{\"a\":1}"[..]));
            assert_eq!(verify(&ring, "other+jwt", &token), Err(Refusal::WrongType));
        }
    }

    #[test]
    fn any_changed_letter_is_found() {
        let ring = ring_of(vec![Stored::random(Algorithm::EdDSA, 0).unwrap()]);
        let token = sign(ring.signer(0).unwrap(), "jwt", b"{\"sub\":\"ada\",\"role\":\"user\"}");
        for at in 0..token.len() {
            for other in ["A", "Q", ".", "=", "_"] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, other);
                assert!(changed == token || verify(&ring, "jwt", &changed).is_err(), "at {at}: {changed}");
            }
        }
    }

    #[test]
    fn the_key_decides_the_algorithm() {
        let (signing, shared) =
            (Stored::random(Algorithm::EdDSA, 0).unwrap(), Stored::random(Algorithm::HS256, 0).unwrap());
        let ring = ring_of(vec![signing.clone(), shared.clone()]);
        let payload = part("{\"sub\":\"admin\"}");
        let header = |alg: &str, kid: &str| part(&format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"jwt"}}"#));
        // The classic attacks: no signature at all, and the public key taken as the secret of an HMAC.
        for alg in ["none", "None", "", "HS256", "RS256"] {
            let message = format!("{}.{payload}", header(alg, &signing.kid));
            let public = ring.key(&signing.kid).unwrap().public().unwrap().to_vec();
            let forged =
                ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public), message.as_bytes());
            for signature in ["", &BASE64_URL_SAFE_NO_PAD.encode(forged)] {
                assert_eq!(
                    verify(&ring, "jwt", &format!("{message}.{signature}")),
                    Err(Refusal::WrongAlgorithm)
                );
            }
        }
        let message = format!("{}.{payload}", header("EdDSA", &shared.kid));
        assert_eq!(verify(&ring, "jwt", &format!("{message}.AA")), Err(Refusal::WrongAlgorithm));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let ring = ring_of(vec![Stored::random(Algorithm::EdDSA, 0).unwrap()]);
        let kid = &ring.signer(0).unwrap().kid;
        for (token, refusal) in [
            (String::new(), Refusal::Malformed),
            ("a".into(), Refusal::Malformed),
            ("..".into(), Refusal::Malformed),
            ("a.b.c.d".into(), Refusal::Malformed),
            (format!("{}.e30.", part("[]")), Refusal::Malformed),
            (format!("{}.e30.", part("{")), Refusal::Malformed),
            (format!("{}.e30.AA", part(r#"{"alg":"EdDSA","typ":"jwt"}"#)), Refusal::UnknownKey),
            (format!("{}.e30.AA", part(r#"{"alg":"EdDSA","kid":"x","typ":"jwt"}"#)), Refusal::UnknownKey),
            (
                format!(
                    "{}.e30.AA",
                    part(&format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"jwt","crit":["b64"]}}"#))
                ),
                Refusal::Unsupported,
            ),
            (
                format!("{}.e30.AA==", part(&format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"jwt"}}"#))),
                Refusal::Malformed,
            ),
            (
                format!("{}.e30.AA", part(&format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"jwt"}}"#))),
                Refusal::BadSignature,
            ),
            ("x".repeat(TOKEN_BYTES_MAX + 1), Refusal::TooLong),
        ] {
            assert_eq!(verify(&ring, "jwt", &token), Err(refusal), "{token:.200}");
        }
    }
}

//! Encrypted tokens on the wire: a signed token inside of the compact form of JWE (RFC 7516, section 3.1), for those that
//! say what their bearer should not read. One way alone: the key of the ring directly (`dir`), with AES-256-GCM.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use lethe_state::error::Error as StateError;
use ring::aead::{Aad, NONCE_LEN, Nonce};
use serde::Deserialize;

use super::{Refusal, TOKEN_BYTES_MAX, jws::decode, key::Key, ring::Ring};

/// Bytes of the authentication tag.
const TAG_BYTES: usize = 16;

#[derive(Deserialize)]
struct Header {
    alg: String,
    enc: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<serde_json::Value>,
    #[serde(default)]
    zip: Option<serde_json::Value>,
}

/// Encrypts a signed token. The nonce is random: a key is good for 2^32 tokens (NIST SP 800-38D, section 8.3), which is
/// 1,600 a second for a month.
pub(super) fn seal(key: &Key, token: &str) -> Result<String, StateError> {
    let header =
        serde_json::json!({ "alg": "dir", "enc": "A256GCM", "kid": key.kid, "typ": "JWT", "cty": "JWT" });
    let header = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce)
        .map_err(|error| StateError::Unavailable(format!("the system gives no random numbers: {error}")))?;
    let mut text = token.as_bytes().to_vec();
    let tag = key
        .seal
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(header.as_bytes()),
            &mut text,
        )
        .map_err(|_| StateError::Invalid("the token is too large to be encrypted".into()))?;
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    Ok(format!("{header}..{}.{}.{}", encode(&nonce), encode(&text), encode(tag.as_ref())))
}

/// The signed token inside of an encrypted one.
pub(super) fn open(ring: &Ring, sealed: &str) -> Result<String, Refusal> {
    if sealed.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let parts: Vec<&str> = sealed.split('.').collect();
    let [header_text, "", nonce, text, tag] = parts[..] else { return Err(Refusal::NotSealed) };
    let header: Header = serde_json::from_slice(&decode(header_text)?).map_err(|_| Refusal::Malformed)?;
    if header.alg != "dir" || header.enc != "A256GCM" || header.crit.is_some() || header.zip.is_some() {
        return Err(Refusal::Unsupported);
    }
    let key = header.kid.and_then(|kid| ring.key(&kid)).ok_or(Refusal::UnknownKey)?;
    let nonce: [u8; NONCE_LEN] = decode(nonce)?.try_into().map_err(|_| Refusal::Malformed)?;
    let (mut text, tag) = (decode(text)?, decode(tag)?);
    if tag.len() != TAG_BYTES {
        return Err(Refusal::Malformed);
    }
    text.extend_from_slice(&tag);
    let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(header_text.as_bytes()));
    let opened = key.seal.open_in_place(nonce, aad, &mut text).map_err(|_| Refusal::BadSignature)?;
    String::from_utf8(opened.to_vec()).map_err(|_| Refusal::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Algorithm, jws, key::Stored, ring::tests::ring_of};

    #[test]
    fn what_was_sealed_is_opened_and_a_change_is_found() {
        let ring = ring_of(vec![Stored::random(Algorithm::EdDSA, 0).unwrap()]);
        let key = ring.signer(0).unwrap();
        let token = jws::sign(key, "jwt", b"{\"secret\":\"rosebud\"}");
        let sealed = seal(key, &token).unwrap();
        assert_eq!(open(&ring, &sealed).as_deref(), Ok(token.as_str()));
        assert_ne!(sealed, seal(key, &token).unwrap());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed.replace_range(at..=at, if &sealed[at..=at] == "A" { "Q" } else { "A" });
            assert!(open(&ring, &changed).is_err(), "at {at}: {changed}");
        }
        assert_eq!(open(&ring, &token), Err(Refusal::NotSealed));
        assert_eq!(open(&ring_of(vec![]), &sealed), Err(Refusal::UnknownKey));
        assert_eq!(open(&ring, &"x".repeat(TOKEN_BYTES_MAX + 1)), Err(Refusal::TooLong));
    }

    #[test]
    fn other_ways_to_encrypt_are_not_done() {
        let ring = ring_of(vec![Stored::random(Algorithm::EdDSA, 0).unwrap()]);
        for header in [
            r#"{"alg":"RSA1_5","enc":"A256GCM"}"#,
            r#"{"alg":"PBES2-HS256+A128KW","enc":"A256GCM","p2c":2147483647}"#,
            r#"{"alg":"dir","enc":"A128CBC-HS256"}"#,
            r#"{"alg":"dir","enc":"A256GCM","zip":"DEF"}"#,
            r#"{"alg":"dir","enc":"A256GCM","crit":["x"]}"#,
        ] {
            let sealed = format!("{}..AAAA.AAAA.AAAA", BASE64_URL_SAFE_NO_PAD.encode(header));
            assert_eq!(open(&ring, &sealed), Err(Refusal::Unsupported), "{header}");
        }
    }
}

//! One key: its name, its algorithm, and what it signs and checks with.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use lethe_state::{Millis, error::Error as StateError};
use ring::{
    aead, hmac,
    signature::{self, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

/// Bytes of a secret: an Ed25519 seed (RFC 8032), or a secret as long as the output of SHA-256 (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;
/// Random bytes in a key's name.
const NAME_BYTES: usize = 9;

/// How a key signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037): whoever has the public key can check a token, and only the service can make one.
    #[default]
    EdDSA,
    /// HMAC with SHA-256 (RFC 7518, section 3.2): whoever can check a token can make one too, so the key is not published.
    /// A tenth of the time of `EdDSA`.
    HS256,
}

impl Algorithm {
    /// Its name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDSA => "EdDSA",
            Self::HS256 => "HS256",
        }
    }
}

/// A key as the state tier keeps it. `Debug` shows no secret.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Its name, by which tokens say who signed them.
    pub(super) kid: String,
    /// How it signs.
    pub(super) algorithm: Algorithm,
    /// What it signs with, in URL-safe base64.
    secret: String,
    /// What it encrypts with, in URL-safe base64.
    seal: String,
    /// From when on it signs; it is published, and checks, from the moment it is there.
    pub(super) signs_from: Millis,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .field("signs_from", &self.signs_from)
            .finish_non_exhaustive()
    }
}

impl Stored {
    /// A new one from the operating system's random numbers.
    pub(super) fn random(algorithm: Algorithm, signs_from: Millis) -> Result<Self, StateError> {
        Ok(Self {
            kid: random::<NAME_BYTES>()?,
            algorithm,
            secret: random::<SECRET_BYTES>()?,
            seal: random::<SECRET_BYTES>()?,
            signs_from,
        })
    }

    /// The key, ready for use; `None` when what is stored is no key.
    pub(super) fn open(&self) -> Option<Key> {
        let secret = decode(&self.secret)?;
        let material = match self.algorithm {
            Algorithm::EdDSA => Material::EdDSA(Ed25519KeyPair::from_seed_unchecked(&secret).ok()?),
            Algorithm::HS256 => Material::HS256(hmac::Key::new(hmac::HMAC_SHA256, &secret)),
        };
        let seal = aead::UnboundKey::new(&aead::AES_256_GCM, &decode(&self.seal)?).ok()?;
        Some(Key {
            kid: self.kid.clone(),
            signs_from: self.signs_from,
            material,
            seal: aead::LessSafeKey::new(seal),
        })
    }
}

fn decode(text: &str) -> Option<[u8; SECRET_BYTES]> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Random bytes in URL-safe base64.
pub(super) fn random<const BYTES: usize>() -> Result<String, StateError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| StateError::Unavailable(format!("the system gives no random numbers: {error}")))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// A key, ready for use.
pub(super) struct Key {
    pub(super) kid: String,
    pub(super) signs_from: Millis,
    material: Material,
    /// Encrypts tokens (AES-256-GCM).
    pub(super) seal: aead::LessSafeKey,
}

enum Material {
    EdDSA(Ed25519KeyPair),
    HS256(hmac::Key),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {})", self.kid, self.algorithm().name())
    }
}

impl Key {
    /// The only algorithm it is for.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::EdDSA(_) => Algorithm::EdDSA,
            Material::HS256(_) => Algorithm::HS256,
        }
    }

    /// The signature of some bytes.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.material {
            Material::EdDSA(pair) => pair.sign(message).as_ref().to_vec(),
            Material::HS256(key) => hmac::sign(key, message).as_ref().to_vec(),
        }
    }

    /// Whether a signature is of these bytes. Takes the same time for all wrong ones.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::EdDSA(pair) => UnparsedPublicKey::new(&signature::ED25519, pair.public_key().as_ref())
                .verify(message, signature)
                .is_ok(),
            Material::HS256(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }

    /// The public half, for those that have one.
    pub(super) fn public(&self) -> Option<&[u8]> {
        match &self.material {
            Material::EdDSA(pair) => Some(pair.public_key().as_ref()),
            Material::HS256(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_checks_what_it_signed_and_nothing_else() {
        for algorithm in [Algorithm::EdDSA, Algorithm::HS256] {
            let stored = Stored::random(algorithm, 0).unwrap();
            let (key, other) =
                (stored.open().unwrap(), Stored::random(algorithm, 0).unwrap().open().unwrap());
            let signature = key.sign(b"message");
            assert!(key.verifies(b"message", &signature));
            assert!(!key.verifies(b"massage", &signature) && !other.verifies(b"message", &signature));
            assert!(!key.verifies(b"message", &signature[1..]) && !key.verifies(b"message", b""));
            assert_eq!(key.public().is_some(), algorithm == Algorithm::EdDSA);
        }
    }

    #[test]
    fn secrets_are_random_and_of_256_bits() {
        let keys: Vec<Stored> = (0..100).map(|_| Stored::random(Algorithm::HS256, 0).unwrap()).collect();
        let secrets: Vec<[u8; 32]> =
            keys.iter().flat_map(|key| [decode(&key.secret).unwrap(), decode(&key.seal).unwrap()]).collect();
        for (byte, bit) in (0..32).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let heads = secrets.iter().filter(|secret| secret[byte] >> bit & 1 == 1).count();
            // Two hundred throws: 50 of one side are seven deviations away from the middle.
            assert!(
                (50..=150).contains(&heads),
                "bit {bit} of byte {byte} was set in {heads} of 200 secrets"
            );
        }
        // A shorter one, as somebody might type it, is no key.
        let typed = Stored { secret: BASE64_URL_SAFE_NO_PAD.encode("secret"), ..keys[0].clone() };
        assert!(typed.open().is_none());
    }

    #[test]
    fn secrets_are_not_shown() {
        let stored = Stored::random(Algorithm::HS256, 7).unwrap();
        let shown = format!("{stored:?} {:?}", stored.open());
        assert!(
            shown.contains(&stored.kid) && !shown.contains(&stored.secret) && !shown.contains(&stored.seal)
        );
    }
}

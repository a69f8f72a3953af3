//! Parsing of one key of a key set (RFC 7517), as tolerant as is safe.
//!
//! Issuers write moduli with a leading zero (RFC 7518 section 6.3.1.1 forbids it), coordinates without one, and base64 with
//! padding or in the other alphabet. Each has only one meaning, so it is accepted. A refused key has a reason.

use std::collections::HashSet;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

use crate::auth::config::Algorithm;
use crate::auth::keys::Key;

/// Bits of an RSA modulus: fewer are weak, and more are refused by the cryptography.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// Bytes of a coordinate on P-256.
const P256_COORDINATE_BYTES: usize = 32;

/// The most characters of a key's name in a log.
const LOGGED_CHARACTERS_MAX: usize = 64;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An unused key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LeftOut {
    /// Its name, or its number in the set from 1.
    pub(super) key: String,
    /// The reason.
    pub(super) why: &'static str,
    /// Set for a key with another purpose, as sets often hold, or a repeated one: not an error.
    pub(super) is_usual: bool,
}

/// Reason why a key is unused.
enum Reason {
    /// Its purpose is not the signing of tokens, or it adds nothing.
    NotNeeded(&'static str),
    /// Its purpose is, but it is unusable.
    Unusable(&'static str),
}

/// The members of a JSON Web Key that matter here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Reads the keys of a set. An unusable key does not affect the others.
pub(super) fn read(set: &[serde_json::Value]) -> (Vec<Key>, Vec<LeftOut>) {
    let (mut keys, mut left_out) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for (at, value) in set.iter().enumerate() {
        let read = Jwk::deserialize(value).map_err(|_| Reason::Unusable("it is not a JSON Web Key"));
        match read.and_then(|jwk| jwk.key(&mut seen)) {
            Ok(key) => keys.push(key),
            Err(reason) => {
                let (why, is_usual) = match reason {
                    Reason::NotNeeded(why) => (why, true),
                    Reason::Unusable(why) => (why, false),
                };
                let name = value.get("kid").and_then(serde_json::Value::as_str);
                left_out.push(LeftOut {
                    key: name.map_or_else(|| format!("number {}", at + 1), short),
                    why,
                    is_usual,
                });
            }
        }
    }
    (keys, left_out)
}

/// Reports a key beyond the bound of its name.
pub(super) fn beyond(key: &Key) -> LeftOut {
    LeftOut {
        key: key.kid.as_deref().map(short).unwrap_or_default(),
        why: "too many keys of its name and algorithm",
        is_usual: false,
    }
}

fn short(name: &str) -> String {
    name.chars().take(LOGGED_CHARACTERS_MAX).collect()
}

/// A key's name, algorithm and numbers.
type Seen = (Box<str>, Algorithm, Vec<Vec<u8>>);

impl Jwk {
    fn key(&self, seen: &mut HashSet<Seen>) -> Result<Key, Reason> {
        let algorithm = self.algorithm()?;
        let kid = self.kid.as_deref();
        let kid: Box<str> = kid
            .ok_or(Reason::Unusable("it has no `kid`, so no token can name it"))?
            .into();
        let (numbers, decoding) = match algorithm {
            Algorithm::Rs256 => self.rsa()?,
            Algorithm::Es256 => self.p256()?,
            Algorithm::EdDsa => self.ed25519()?,
            Algorithm::Hs256 => return Err(Reason::Unusable("a published secret is none")),
        };
        // It would take one of the places of its name, and each token would be tried with it twice.
        if !seen.insert((kid.clone(), algorithm, numbers)) {
            return Err(Reason::NotNeeded("the same key stands in the set twice"));
        }
        Ok(Key {
            kid: Some(kid),
            algorithm,
            decoding,
        })
    }

    fn algorithm(&self) -> Result<Algorithm, Reason> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err(Reason::NotNeeded("its `use` is not `sig`"));
        }
        let operations = self.key_ops.as_ref();
        if operations.is_some_and(|operations| operations.iter().all(|operation| operation != "verify")) {
            return Err(Reason::NotNeeded("its `key_ops` have no `verify`"));
        }
        let (algorithm, name) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::Rs256, "RS256"),
            ("EC", Some("P-256")) => (Algorithm::Es256, "ES256"),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, "EdDSA"),
            ("oct", _) => return Err(Reason::Unusable("a published secret is none")),
            _ => return Err(Reason::NotNeeded("its type or curve is not supported")),
        };
        // RFC 9864 gives Ed25519 a name of its own.
        let alg = self.alg.as_deref();
        if alg.is_some_and(|alg| alg != name && !(algorithm == Algorithm::EdDsa && alg == "Ed25519")) {
            return Err(Reason::NotNeeded("its `alg` is not supported for its type"));
        }
        Ok(algorithm)
    }

    fn rsa(&self) -> Result<(Vec<Vec<u8>>, DecodingKey), Reason> {
        let n = number(self.n.as_deref(), "`n` is not base64")?;
        let e = number(self.e.as_deref(), "`e` is not base64")?;
        let bits = n
            .first()
            .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(Reason::Unusable("its modulus has not 2,048 to 8,192 bits"));
        }
        if e.last().is_none_or(|last| last % 2 == 0) {
            return Err(Reason::Unusable("its exponent is not odd"));
        }
        let decoding = DecodingKey::from_rsa_raw_components(&n, &e);
        Ok((vec![n, e], decoding))
    }

    fn p256(&self) -> Result<(Vec<Vec<u8>>, DecodingKey), Reason> {
        let mut point = vec![0x04];
        for (coordinate, why) in [(&self.x, "`x` is not base64"), (&self.y, "`y` is not base64")] {
            let number = number(coordinate.as_deref(), why)?;
            let missing = P256_COORDINATE_BYTES.checked_sub(number.len());
            let missing = missing.ok_or(Reason::Unusable("its point is not on P-256"))?;
            point.resize(point.len() + missing, 0);
            point.extend(number);
        }
        usable(&ECDSA_P256_SHA256_FIXED, &point, "its point is not on P-256")?;
        let decoding = DecodingKey::from_ec_der(&point);
        Ok((vec![point], decoding))
    }

    fn ed25519(&self) -> Result<(Vec<Vec<u8>>, DecodingKey), Reason> {
        let x = decode(self.x.as_deref(), "`x` is not base64")?;
        usable(&ED25519, &x, "`x` is no key of Ed25519")?;
        let decoding = DecodingKey::from_ed_der(&x);
        Ok((vec![x], decoding))
    }
}

fn usable(algorithm: &'static dyn VerificationAlgorithm, key: &[u8], why: &'static str) -> Result<(), Reason> {
    ParsedPublicKey::new(algorithm, key)
        .map(drop)
        .map_err(|_| Reason::Unusable(why))
}

/// Decodes base64, of either alphabet.
fn decode(member: Option<&str>, why: &'static str) -> Result<Vec<u8>, Reason> {
    let member = member.ok_or(Reason::Unusable(why))?.trim();
    let url_safe = member.replace('+', "-").replace('/', "_");
    BASE64.decode(url_safe).map_err(|_| Reason::Unusable(why))
}

/// Decodes a number, without leading zeros.
fn number(member: Option<&str>, why: &'static str) -> Result<Vec<u8>, Reason> {
    let mut bytes = decode(member, why)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}

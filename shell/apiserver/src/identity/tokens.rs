//! Service-account tokens: JSON Web Tokens (RFC 7519) signed with ES256, with
//! Kubernetes' private claims.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{failed, read, write};
use crate::OpenError;

/// Tolerated difference of clocks between those who sign and those who read.
const LEEWAY_SECONDS: i64 = 10;

/// Signs and checks tokens.
pub(crate) struct Signer {
    issuer: String,
    key_id: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) nbf: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    pub(crate) sub: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: KubernetesClaims,
}

/// The private claims.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct KubernetesClaims {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: NamedClaim,
    /// The pod with whose end the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<NamedClaim>,
}

/// An object by name and uid.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct NamedClaim {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is not a signed JSON Web Token of this server")]
    Malformed,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired or is not valid yet")]
    Time,
    #[error("the token is for another issuer or audience")]
    Audience,
    #[error("the service account or the pod of the token is gone")]
    Gone,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

impl Signer {
    pub(super) fn open(dir: &Path, issuer: String) -> Result<Self, OpenError> {
        let path = dir.join("service-account.key");
        let doing = || format!("use the token signing key {}", path.display());
        let pem = match read(&path)? {
            Some(pem) => pem,
            None => {
                let pem = KeyPair::generate()
                    .map_err(|error| failed("make a token signing key", error))?
                    .serialize_pem();
                write(&path, &pem)?;
                pem
            }
        };
        let pair = KeyPair::from_pem(&pem).map_err(|error| failed(doing(), error))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            pair.serialized_der(),
            &random,
        )
        .map_err(|error| failed(doing(), std::io::Error::other(error.to_string())))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Self {
            issuer,
            key_id,
            key,
            random,
        })
    }

    /// The issuer, which is also the audience of tokens for this server.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token for these claims; `None` if the system gives no randomness.
    pub(crate) fn sign(&self, claims: &Claims) -> Option<String> {
        let header = Header {
            alg: "ES256".to_owned(),
            kid: self.key_id.clone(),
        };
        let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).ok()?);
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).ok()?);
        let message = format!("{header}.{payload}");
        let signature = self.key.sign(&self.random, message.as_bytes()).ok()?;
        Some(format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(signature.as_ref())
        ))
    }

    /// The claims of a token that is valid at `now` (seconds of Unix time) for
    /// one of these audiences; for this server if none is named.
    pub(crate) fn verify(
        &self,
        token: &str,
        now: i64,
        audiences: &[&str],
    ) -> Result<Claims, TokenError> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed);
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let parsed: Header = decode(header)
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or(TokenError::Malformed)?;
        if parsed.alg != "ES256" || parsed.kid != self.key_id {
            return Err(TokenError::Malformed);
        }
        let signature = decode(signature).ok_or(TokenError::Malformed)?;
        let message = &token[..header.len() + 1 + payload.len()];
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key());
        if public.verify(message.as_bytes(), &signature).is_err() {
            return Err(TokenError::Signature);
        }
        let claims: Claims = decode(payload)
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or(TokenError::Malformed)?;
        if claims.exp <= now || claims.nbf > now + LEEWAY_SECONDS {
            return Err(TokenError::Time);
        }
        let meant = |own: &String| match audiences {
            [] => *own == self.issuer,
            wanted => wanted.contains(&own.as_str()),
        };
        if claims.iss != self.issuer || !claims.aud.iter().any(meant) {
            return Err(TokenError::Audience);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(issuer: &str) -> Claims {
        Claims {
            aud: vec![issuer.to_owned()],
            exp: 1_000,
            iat: 0,
            nbf: 0,
            iss: issuer.to_owned(),
            jti: "1".to_owned(),
            sub: "system:serviceaccount:default:default".to_owned(),
            kubernetes: KubernetesClaims {
                namespace: "default".to_owned(),
                serviceaccount: NamedClaim {
                    name: "default".to_owned(),
                    uid: "u".to_owned(),
                },
                pod: None,
            },
        }
    }

    #[test]
    fn tokens_are_checked_in_every_part() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Signer::open(dir.path(), "https://issuer".to_owned()).unwrap();
        let token = open().sign(&claims("https://issuer")).unwrap();
        // Another process with the same key file accepts it.
        let signer = open();
        assert_eq!(
            signer.verify(&token, 500, &[]),
            Ok(claims("https://issuer"))
        );
        assert_eq!(signer.verify(&token, 1_000, &[]), Err(TokenError::Time));
        assert_eq!(signer.verify(&token, -11, &[]), Err(TokenError::Time));
        let foreign = signer.sign(&claims("https://other")).unwrap();
        assert_eq!(signer.verify(&foreign, 500, &[]), Err(TokenError::Audience));
        let (message, _) = token.rsplit_once('.').unwrap();
        let (_, other) = foreign.rsplit_once('.').unwrap();
        assert_eq!(
            signer.verify(&format!("{message}.{other}"), 500, &[]),
            Err(TokenError::Signature)
        );
        for bad in ["", "a", "a.b.c", "....", &token[1..]] {
            assert_eq!(
                signer.verify(bad, 500, &[]),
                Err(TokenError::Malformed),
                "{bad}"
            );
        }
    }
}

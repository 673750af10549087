//! Values that must not be shown.

use std::fmt;

use subtle::ConstantTimeEq;

use super::ConfigError;

/// Shown in place of a secret.
pub(super) const MASK: &str = "***";

/// librdkafka's settings that hold a secret, or may hold one, have one of these in their names.
const SECRET_NAMES: &[&str] = &[
    "password",
    "secret",
    "token",
    "jaas",
    "oauthbearer.config",
    "key.pem",
    "private.key",
    "passphrase",
    "credential",
];

/// Settings of `sasl.` and `ssl.` without a secret. Any other one is masked, because it may be a misspelt secret.
const HARMLESS: &[&str] = &[
    "sasl.kerberos.keytab",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.username",
    "ssl.ca.certificate.stores",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.providers",
    "ssl.sigalgs.list",
];

/// A secret. It can be compared; no output shows it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Checks a bearer token: visible ASCII only, because a header cannot carry anything else without an encoding.
    pub(crate) fn token(name: &'static str, value: String) -> Result<Self, ConfigError> {
        if value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(value));
        }
        Err(ConfigError::new(name, format!("{name} must be ASCII without spaces and control characters")))
    }

    /// Returns whether `other` is the same, in a time that depends only on the lengths.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(other).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Returns whether the librdkafka setting with this name may hold a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let secures = name.starts_with("sasl.") || name.starts_with("ssl.");
    SECRET_NAMES.iter().any(|part| name.contains(part)) || (secures && !HARMLESS.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing_and_compares() {
        let secret = Secret::token("REST_TOKEN", "abc-123".into()).expect("it is allowed");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)).matches("abc").count(), 0);
        assert!(secret.matches(b"abc-123"));
        assert!(!secret.matches(b"abc-124") && !secret.matches(b"abc-12") && !secret.matches(b""));
    }

    #[test]
    fn what_librdkafka_keeps_secret_is_known() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "SASL.PASSWORD",
            "sasl.pasword",
            "ssl.key.pasphrase",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["sasl.username", "sasl.mechanism", "ssl.ca.location", "client.id", "partitioner"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}

//! Types for secrets: redacted in `Debug`, read through an explicit accessor, wiped from memory when dropped.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// There is no `Display`, `Deref` or `Serialize`: reading it takes [`Self::expose_secret`].
        /// Comparison takes the same time wherever the values differ.
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name(String);

        impl $name {
            /// Takes ownership of the secret.
            pub fn new(secret: impl Into<String>) -> Self {
                Self(secret.into())
            }

            /// Returns the secret itself. Keep it out of logs, errors and URLs.
            pub fn expose_secret(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(***)"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
            }
        }

        impl Eq for $name {}

        impl From<&str> for $name {
            fn from(secret: &str) -> Self {
                Self::new(secret)
            }
        }

        impl From<String> for $name {
            fn from(secret: String) -> Self {
                Self::new(secret)
            }
        }
    };
}

secret! {
    /// An access token (RFC 6749, section 1.4).
    AccessToken
}
secret! {
    /// A refresh token (RFC 6749, section 1.5). Often single-use.
    RefreshToken
}
secret! {
    /// The secret of an OAuth client (RFC 6749, section 2.3.1).
    ClientSecret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_redacted_and_comparison_is_by_value() {
        let token = RefreshToken::new("ts-test-secret-1");
        assert_eq!(format!("{token:?}"), "RefreshToken(***)");
        assert_eq!(token, RefreshToken::from("ts-test-secret-1"));
        assert_ne!(token, RefreshToken::from("ts-test-secret-2"));
        assert_ne!(token, RefreshToken::from("ts-test-secret"));
    }
}

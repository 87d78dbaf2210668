//! The small bodies of requests.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::secret;
use crate::AccessToken;
#[cfg(feature = "web")]
use crate::TokenKey;

/// A whole number in JSON; `41.0` is one as well.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Whole(pub(crate) u64);

/// More than any counter reaches, and small enough for a JSON number to be exact.
pub(crate) const LARGEST: u64 = 1 << 40;

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if number.fract() != 0.0 || !(0.0..=LARGEST as f64).contains(&number) {
            return Err(D::Error::custom("not a whole number"));
        }
        Ok(Self(number as u64))
    }
}

/// A body without members.
#[cfg(feature = "web")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmptyBody {}

/// Why an operator or an application makes a change.
#[derive(Deserialize, Serialize)]
#[cfg_attr(feature = "web", derive(schemars::JsonSchema), schemars(rename = "Reason"))]
#[serde(deny_unknown_fields)]
pub(crate) struct ReasonBody {
    /// The reason, shown wherever the state of the grant or identity provider is.
    #[cfg_attr(feature = "web", schemars(schema_with = "super::schema::name"))]
    pub(crate) reason: String,
}

/// Which token a resource server refused: its generation, or the token itself.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RejectedBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<Whole>,
    #[serde(default, with = "secret::optional", skip_serializing_if = "Option::is_none")]
    pub(crate) access_token: Option<AccessToken>,
}

/// Which tokens to return.
#[cfg(feature = "web")]
#[derive(Deserialize, schemars::JsonSchema)]
#[schemars(rename = "Batch")]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchBody {
    /// How many seconds each token must still be valid.
    pub(crate) min_ttl: Option<Whole>,
    /// How many seconds to wait for the response; 10 unless given.
    #[serde(default)]
    #[schemars(schema_with = "super::schema::timeout")]
    pub(crate) timeout: Option<Whole>,
    /// The grants.
    #[schemars(length(max = 100))]
    pub(crate) items: Vec<BatchItem>,
}

/// The grant of a token.
#[cfg(feature = "web")]
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchItem {
    idp: String,
    user: String,
    account: Option<String>,
}

#[cfg(feature = "web")]
impl BatchItem {
    pub(crate) fn key(&self) -> TokenKey {
        TokenKey::at(&self.idp).user(&self.user).account(self.account.as_deref().unwrap_or_default())
    }
}

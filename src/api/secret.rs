//! Access tokens as members of bodies: where the API hands them out, or a caller reports one.

use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

use crate::AccessToken;

pub(super) fn serialize<S: Serializer>(token: &AccessToken, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose_secret())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccessToken, D::Error> {
    String::deserialize(deserializer).map(AccessToken::from)
}

/// The same for a member that may be missing.
pub(super) mod optional {
    use super::*;

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(in super::super) fn serialize<S: Serializer>(
        token: &Option<AccessToken>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        token.as_ref().map(AccessToken::expose_secret).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<AccessToken>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(AccessToken::from))
    }
}

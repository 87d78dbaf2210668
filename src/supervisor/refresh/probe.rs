//! A probe of a doubt: what the provider says of a refresh token that may be spent, without spending it.

use super::seal;
use crate::{
    idp::{IdpFailure, Slot},
    keyring::Keyring,
    model::{Row, WallTime},
    protocol::doubt::{ProbeAnswer, ProbeMeans},
    supervisor::provider::Provider,
};

/// Asks the provider. The second part is the response of its authorization server, if that was asked.
pub(super) async fn ask(
    keyring: &Keyring,
    provider: &Provider,
    slot: &Slot,
    row: &Row,
    now: WallTime,
) -> (ProbeAnswer, Option<Result<(), IdpFailure>>) {
    const UNASKED: (ProbeAnswer, Option<Result<(), IdpFailure>>) = (ProbeAnswer::Nothing, None);
    let (client, idp) = (&provider.client, &provider.idp);
    let by_introspection = provider.times.rules.probe == ProbeMeans::Introspection;
    let said = if by_introspection {
        let Ok((token, params)) = seal::spendable(keyring, row) else { return UNASKED };
        client.introspect(idp, slot.credentials_index(), &token, &params).await
    } else {
        // An expired token is refused, whatever became of the refresh token.
        let valid = row.expires.at().is_none_or(|end| end > now);
        let Some(token) = seal::access_token(keyring, row).filter(|_| valid) else { return UNASKED };
        client.accepts(idp, &token, &seal::params(keyring, row)).await
    };
    let Some(said) = said else { return UNASKED };
    let answer = match &said {
        Ok(true) => ProbeAnswer::Unspent,
        Ok(false) if by_introspection => ProbeAnswer::Spent,
        // It may be refused because it has expired by another clock.
        Ok(false) => ProbeAnswer::Nothing,
        Err(failure) if is_final(failure) => ProbeAnswer::Nothing,
        Err(_) => ProbeAnswer::Silent,
    };
    (answer, by_introspection.then(|| said.map(drop)))
}

/// Whether the next response will be the same, as far as that can be known: the endpoint is not for this client or does not exist.
fn is_final(failure: &IdpFailure) -> bool {
    failure.evidence.status.is_some_and(|status| (400..500).contains(&status) && ![408, 429].contains(&status))
}

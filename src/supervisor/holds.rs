//! Identity providers that people hold: nothing is started for them.
//!
//! The store has the reasons, so that they survive restarts. Each process has a copy in its [`Provider`]s, for
//! attempts and actors to look at, and reads it again with each sweep.
//!
//! [`Provider`]: super::core::Provider

use std::{collections::HashMap, sync::Arc};

use super::{command::TIMEOUT, core::Core, token::refusal};
use crate::{error::Error, store::StoreError};

/// What the names of these values begin with; the identity provider's name follows.
const PREFIX: &str = "held:";

/// Learns from the store which identity providers are held.
pub(super) async fn read(core: &Core) -> Result<(), StoreError> {
    let _alone = core.holds.lock().await;
    let mut held: HashMap<_, _> = core.store.metas(PREFIX).await?.into_iter().collect();
    for (name, provider) in &core.idps {
        let reason = held.remove(name).map(|reason| String::from_utf8_lossy(&reason).into_owned());
        provider.hold.send_if_modified(|hold| std::mem::replace(hold, reason.clone()) != reason);
    }
    Ok(())
}

/// Holds the identity provider for this reason, or releases it. In a task of its own: a caller that is gone must
/// not leave the copy behind what was stored.
pub(super) async fn set(core: &Arc<Core>, name: &str, reason: Option<&str>) -> Result<(), Error> {
    if !core.idps.contains_key(name) {
        return Err(Error::UnknownIdp);
    }
    let clock = core.clock.clone();
    let (core, name, reason) = (core.clone(), name.to_owned(), reason.map(str::to_owned));
    let set = core.runtime.clone().spawn(async move {
        let _alone = core.holds.lock().await;
        let value = reason.clone().map(String::into_bytes);
        core.store.set_meta(format!("{PREFIX}{name}"), value).await?;
        if let Some(provider) = core.idps.get(&name) {
            provider.hold.send_replace(reason);
        }
        Ok::<_, StoreError>(())
    });
    tokio::select! {
        set = set => set.map_err(|_| Error::ShutDown)?.map_err(|error| refusal(&error)),
        () = clock.sleep(TIMEOUT) => Err(Error::Timeout),
    }
}

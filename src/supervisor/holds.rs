//! Identity providers that people hold: nothing is started for them.
//!
//! The store has the reasons, so that they survive restarts. Each process has a copy, for attempts and actors to
//! look at, and reads it again with each sweep.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{Mutex, watch};

use super::{command::TIMEOUT, core::Core, token::refusal};
use crate::{error::Error, store::StoreError};

/// What people hold, by the names of identity providers.
#[derive(Default)]
pub(super) struct Holds {
    pub(super) reasons: watch::Sender<HashMap<String, String>>,
    /// Taken while the store is read or written, so that nobody goes by what was read before it was written.
    alone: Mutex<()>,
}

/// What the names of these values begin with; the identity provider's name follows.
const PREFIX: &str = "held:";

/// Learns from the store which identity providers are held.
pub(super) async fn read(core: &Core) -> Result<(), StoreError> {
    let _alone = core.holds.alone.lock().await;
    let stored = core.store.metas(PREFIX).await?.into_iter();
    let held: HashMap<_, _> =
        stored.map(|(name, reason)| (name, String::from_utf8_lossy(&reason).into_owned())).collect();
    core.holds.reasons.send_if_modified(|reasons| {
        let changed = *reasons != held;
        *reasons = held;
        changed
    });
    Ok(())
}

/// Holds the identity provider for this reason, or releases it. In a task of its own: a caller that is gone must
/// not leave the copy behind what was stored.
pub(super) async fn set(core: &Arc<Core>, name: &str, reason: Option<&str>) -> Result<(), Error> {
    if core.provider(name).is_none() {
        return Err(Error::UnknownIdp);
    }
    let clock = core.clock.clone();
    let (core, name, reason) = (core.clone(), name.to_owned(), reason.map(str::to_owned));
    let set = core.runtime.clone().spawn(async move {
        let _alone = core.holds.alone.lock().await;
        let value = reason.clone().map(String::into_bytes);
        core.store.set_meta(&format!("{PREFIX}{name}"), value).await?;
        core.holds.reasons.send_modify(|reasons| match reason {
            Some(reason) => drop(reasons.insert(name, reason)),
            None => drop(reasons.remove(&name)),
        });
        Ok::<_, StoreError>(())
    });
    tokio::select! {
        set = set => set.map_err(|_| Error::ShutDown)?.map_err(|error| refusal(&error)),
        () = clock.sleep(TIMEOUT) => Err(Error::Timeout),
    }
}

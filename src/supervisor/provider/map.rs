//! The map of all configured identity providers.

use std::{collections::HashMap, sync::Arc};

use arc_swap::{ArcSwap, Guard};

use super::{Provider, holds::Holds};
use crate::{
    clock::Clock,
    error::{Cause, Error},
    idp::{HealthChange, Idp, IdpFailure, Oddities},
    metrics::count,
    model::{Evidence, valid_idp_name},
    store::StoreError,
    supervisor::{
        events::{Channel, EventKind, TokenEvent},
        ledger::Ledger,
        settings::RefreshSettings,
    },
};

pub(in crate::supervisor) struct Providers {
    /// Replaced as a whole when settings change; an attempt keeps those that it started with.
    all: ArcSwap<HashMap<String, Arc<Provider>>>,
    refresh: RefreshSettings,
    holds: Holds,
    clock: Clock,
    events: Arc<Channel>,
}

impl Providers {
    /// # Errors
    /// [`Error::Configuration`]: a provider is configured twice, or its settings cannot work.
    pub(in crate::supervisor) fn new(
        idps: Vec<(String, Idp)>,
        refresh: RefreshSettings,
        deployment: Option<String>,
        clock: Clock,
        events: Arc<Channel>,
    ) -> Result<Self, Error> {
        let providers = Self { all: ArcSwap::default(), refresh, holds: Holds::new(deployment), clock, events };
        let mut all = HashMap::new();
        for (name, idp) in idps {
            let provider = providers.provider(&name, idp, None)?;
            if all.insert(name.clone(), provider).is_some() {
                return Err(wrong(&name, "it is configured twice"));
            }
        }
        providers.all.store(Arc::new(all));
        Ok(providers)
    }

    fn provider(&self, name: &str, idp: Idp, before: Option<&Provider>) -> Result<Arc<Provider>, Error> {
        if !valid_idp_name(name) {
            return Err(wrong(name, "its name must match [a-z0-9][a-z0-9_-]{0,63}"));
        }
        Provider::new(idp, &self.refresh, &self.clock, before).map(Arc::new).map_err(|text| wrong(name, &text))
    }

    /// Returns the provider with its settings of this moment, if it is configured.
    pub(in crate::supervisor) fn get(&self, name: &str) -> Option<Arc<Provider>> {
        self.all.load().get(name).cloned()
    }

    pub(in crate::supervisor) fn all(&self) -> Guard<Arc<HashMap<String, Arc<Provider>>>> {
        self.all.load()
    }

    /// Adds a provider, or replaces the settings of one.
    ///
    /// # Errors
    /// [`Error::Configuration`]: what is wrong with the settings; the old ones stay.
    pub(in crate::supervisor) fn set(&self, name: &str, idp: Idp) -> Result<(), Error> {
        let before = self.get(name);
        let provider = self.provider(name, idp, before.as_deref())?;
        self.all.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(name.to_owned(), provider.clone());
            all
        });
        let was_paused = before.is_some_and(|before| before.gate.is_paused());
        if was_paused && provider.gate.closed(self.clock.read()).is_none() {
            self.announce(name, vec![HealthChange::Recovered { cause: Cause::ClientRefused }], None);
        }
        Ok(())
    }

    /// Divides the limits of all providers among so many processes at the same store.
    pub(in crate::supervisor) fn share(&self, processes: usize) {
        self.all.load().values().for_each(|provider| provider.gate.share(processes));
    }

    /// Returns why this provider is on hold, if it is.
    pub(in crate::supervisor) fn held(&self, name: &str) -> Option<String> {
        self.holds.reason(name)
    }

    /// Resolves when the provider is on hold.
    pub(in crate::supervisor) async fn until_held(&self, name: &str) {
        self.holds.until_held(name).await;
    }

    /// Whether this deployment has a name.
    pub(in crate::supervisor) fn has_deployment(&self) -> bool {
        self.holds.has_deployment()
    }

    /// Returns why all providers are on hold, if the store belongs to another deployment.
    pub(in crate::supervisor) fn foreign(&self) -> Option<String> {
        self.holds.foreign()
    }

    /// Whether all providers are on hold because the store went back in time.
    pub(in crate::supervisor) fn are_recovering(&self) -> bool {
        self.holds.is_recovering()
    }

    /// Makes the store ours. Returns the name of the deployment that it belonged to, if that was another one.
    pub(in crate::supervisor) async fn adopt(&self, ledger: &Ledger) -> Result<Option<String>, StoreError> {
        self.holds.adopt(ledger).await
    }

    /// Reads from the store which providers are on hold.
    pub(in crate::supervisor) async fn read_holds(&self, ledger: &Ledger) -> Result<(), StoreError> {
        self.holds.read(ledger).await
    }

    /// Stores a hold with this reason, or the end of one.
    pub(in crate::supervisor) async fn set_hold(
        &self,
        ledger: &Ledger,
        name: &str,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        self.holds.set(ledger, name, reason).await
    }

    /// Ends a surge of refusals because people say so.
    pub(in crate::supervisor) fn end_surge(&self, name: &str) {
        if self.get(name).is_some_and(|provider| provider.gate.end_surge()) {
            self.announce(name, vec![HealthChange::Recovered { cause: Cause::RefusalSurge }], None);
        }
    }

    /// Whether nothing is sent to this provider whatever the grant: it is on hold, or not configured any more.
    pub(in crate::supervisor) fn stands_still(&self, name: &str) -> bool {
        self.get(name).is_none() || self.held(name).is_some()
    }

    /// Whether a refresh may start there now: the provider is configured, not on hold, and its gate is open.
    pub(in crate::supervisor) fn is_open(&self, name: &str) -> bool {
        let open = |provider: Arc<Provider>| provider.gate.closed(self.clock.read()).is_none();
        self.get(name).is_some_and(open) && self.held(name).is_none()
    }

    /// Logs, counts and emits what was odd about a response that brought tokens all the same.
    pub(in crate::supervisor) fn report_oddities(&self, idp: &str, provider: &Provider, oddities: &Oddities) {
        if let Some(flaw) = oddities.flaw {
            count(&provider.counters.tolerated[flaw]);
            tracing::warn!(
                idp,
                flaw = <&str>::from(flaw),
                "the response with the tokens is not JSON: it was read all the same; report it to the identity provider"
            );
        }
        for field in &oddities.senseless {
            if provider.counters.drifted(field) {
                tracing::warn!(
                    idp,
                    field,
                    "the response states a lifetime that makes no sense: it was read as what it plainly is, or reduced; \
                     set access_lifetime_override_seconds, or max_access_lifetime_seconds if it is right"
                );
                let kind = EventKind::ResponseDrift { field };
                self.events.emit(TokenEvent::of_idp(idp, self.clock.now(), kind));
            }
        }
    }

    /// Logs and emits what follows from a response of the provider; `failure` is the response, if it was a failure.
    pub(in crate::supervisor) fn announce(&self, idp: &str, notices: Vec<HealthChange>, failure: Option<&IdpFailure>) {
        for notice in notices {
            let now = self.clock.now();
            log(idp, notice, failure);
            let kind = match notice {
                HealthChange::Paused { cause, wait } => EventKind::IdpPaused {
                    cause,
                    evidence: failure
                        .map_or_else(|| Evidence::ours(cause), |failure| failure.evidence.without_description()),
                    until: (now + wait).into(),
                },
                HealthChange::Recovered { cause } => EventKind::IdpRecovered { cause },
            };
            self.events.emit(TokenEvent::of_idp(idp, now, kind));
        }
    }
}

fn wrong(name: &str, text: &str) -> Error {
    Error::Configuration(format!("identity provider {name:?}: {text}"))
}

fn log(idp: &str, notice: HealthChange, failure: Option<&IdpFailure>) {
    let evidence = failure.map(|failure| failure.evidence.to_string());
    match notice {
        HealthChange::Paused { cause: Cause::ClientRefused, .. } => tracing::error!(
            idp,
            evidence,
            "the provider refuses our client: its refreshes are paused, no grant is changed; check client_id and client_secret"
        ),
        HealthChange::Paused { cause: Cause::RefusalSurge, .. } => tracing::error!(
            idp,
            evidence,
            "the provider suddenly refuses the refresh tokens of many users: its refreshes are paused, and one request at a time checks; check the provider, then release it"
        ),
        HealthChange::Paused { cause, .. } => tracing::error!(
            idp,
            evidence,
            cause = cause.as_str(),
            "the provider is failing: its refreshes are paused, and one request at a time probes whether it has recovered"
        ),
        HealthChange::Recovered { cause } => tracing::info!(idp, cause = cause.as_str(), "the provider has recovered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{presets, supervisor::bench::Bench};

    fn idp() -> Idp {
        presets::oauth2("https://acme.example/token", "id", "ts-test-secret-x")
    }

    #[tokio::test]
    async fn a_provider_is_open_while_it_is_configured_and_not_on_hold() {
        let bench = Bench::new();
        let providers = &bench.providers;
        assert!(providers.stands_still("acme") && !providers.is_open("acme"));
        providers.set("acme", idp()).unwrap();
        assert!(!providers.stands_still("acme") && providers.is_open("acme"));
        providers.set_hold(&bench.ledger, "acme", Some("maintenance")).await.unwrap();
        assert!(providers.stands_still("acme") && !providers.is_open("acme"));
        assert_eq!(providers.held("acme").as_deref(), Some("maintenance"));
    }

    #[tokio::test]
    async fn a_name_that_is_none_and_a_second_section_are_refused() {
        let bench = Bench::new();
        assert!(matches!(bench.providers.set("No Name", idp()), Err(Error::Configuration(_))));
        let twice = vec![("acme".to_owned(), idp()), ("acme".to_owned(), idp())];
        let refused =
            Providers::new(twice, RefreshSettings::default(), None, bench.clock.clone(), Arc::default()).err();
        assert!(refused.is_some_and(|error| error.to_string().contains("twice")));
    }

    #[tokio::test]
    async fn pauses_and_recoveries_are_emitted() {
        let bench = Bench::new();
        let mut events = bench.events.listen();
        let cause = Cause::IdpDown;
        let wait = std::time::Duration::from_secs(5);
        bench.providers.announce(
            "acme",
            vec![HealthChange::Paused { cause, wait }, HealthChange::Recovered { cause }],
            None,
        );
        let mut kinds = Vec::new();
        for _ in 0..2 {
            kinds.push(events.recv().await.unwrap().unwrap().kind.as_str());
        }
        assert_eq!(kinds, ["idp_paused", "idp_recovered"]);
    }
}

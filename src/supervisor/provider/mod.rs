//! The identity providers at run time.
//!
//! [`Provider`] is one of them: its settings, the gate before it, its client and its counters. [`Providers`] is the map of
//! all, and knows which of them are on hold. Both outlive actors, attempts and reloads of the configuration.

mod counters;
mod holds;
mod map;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub(super) use self::{
    counters::{IdpCounters, RefreshOutcome, RefreshPhase},
    holds::RECOVERY,
    map::Providers,
};
use super::settings::{RefreshSettings, Times};
use crate::{
    clock::Clock,
    idp::{Client, Gate, Idp, Rotation},
    protocol::doubt::Rules,
};

/// One configured identity provider.
pub(super) struct Provider {
    pub(super) idp: Idp,
    pub(super) times: Times,
    pub(super) client: Client,
    pub(super) gate: Arc<Gate>,
    pub(super) counters: Arc<IdpCounters>,
    /// The provider has rotated a refresh token although its settings promise that it never does.
    rotates: AtomicBool,
    /// The lifetime of an access token in milliseconds that a response told last; 0 if none did.
    told_lifetime: AtomicU64,
}

impl Provider {
    /// Puts the settings `idp` to work. What the gate and the counters of `before` know is kept.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(super) fn new(
        idp: Idp,
        refresh: &RefreshSettings,
        clock: &Clock,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        idp.validate()?;
        let times = Times::of(&idp, refresh)?;
        let client = Client::new(&idp, times.connect_timeout, clock.clone())?;
        let gate = Arc::new(
            before.map_or_else(|| Gate::new(&idp, clock.read()), |before| before.gate.reconfigured(&idp, clock.read())),
        );
        let rotates = AtomicBool::new(before.is_some_and(Self::has_rotated));
        let counters = before.map_or_else(Arc::default, |before| before.counters.clone());
        let told_lifetime = AtomicU64::new(before.map_or(0, |before| before.told_lifetime.load(Ordering::Relaxed)));
        Ok(Self { idp, times, client, gate, counters, rotates, told_lifetime })
    }

    /// Records the lifetime of an access token that a response told.
    pub(super) fn saw_lifetime(&self, told: Duration) {
        if !told.is_zero() {
            self.told_lifetime.store(told.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Returns the lifetime of an access token of which nothing else is known: as the settings assume it, otherwise as another
    /// grant of the provider was told.
    pub(super) fn usual_lifetime(&self) -> Option<Duration> {
        let told = Duration::from_millis(self.told_lifetime.load(Ordering::Relaxed));
        self.idp.access_lifetime.or((!told.is_zero()).then_some(told))
    }

    fn has_rotated(&self) -> bool {
        self.rotates.load(Ordering::Relaxed)
    }

    /// Records that a response brought another refresh token than the one that was sent.
    pub(super) fn saw_rotation(&self, name: &str) {
        if self.idp.rotation == Rotation::Never && !self.rotates.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                idp = name,
                "the provider rotates refresh tokens although its settings say never: set rotation"
            );
        }
    }

    /// Returns the times and rules that hold by what is known now.
    pub(super) fn rules(&self) -> Rules {
        let rules = self.times.rules;
        Rules { never_rotates: rules.never_rotates && !self.has_rotated(), ..rules }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, presets};

    fn provider(idp: Idp, before: Option<&Provider>) -> Result<Provider, String> {
        let clock = Clock::manual(&ManualClock::new(std::time::SystemTime::UNIX_EPOCH));
        Provider::new(idp, &RefreshSettings::default(), &clock, before)
    }

    #[test]
    fn a_promise_never_to_rotate_that_was_broken_stays_broken_after_a_reload() {
        let idp = || presets::oauth2("https://acme.example/token", "id", "ts-test-secret-x").rotation(Rotation::Never);
        let first = provider(idp(), None).unwrap();
        assert!(first.rules().never_rotates);
        first.saw_rotation("acme");
        assert!(!first.rules().never_rotates);
        let second = provider(idp(), Some(&first)).unwrap();
        assert!(!second.rules().never_rotates && Arc::ptr_eq(&second.counters, &first.counters));
    }

    #[test]
    fn a_lifetime_that_nobody_tells_is_the_assumed_one_or_that_of_another_grant() {
        let idp = || presets::oauth2("https://acme.example/token", "id", "ts-test-secret-x");
        let first = provider(idp(), None).unwrap();
        assert_eq!(first.usual_lifetime(), None);
        first.saw_lifetime(Duration::from_secs(600));
        first.saw_lifetime(Duration::ZERO);
        assert_eq!(first.usual_lifetime(), Some(Duration::from_secs(600)));
        let second = provider(idp(), Some(&first)).unwrap();
        assert_eq!(second.usual_lifetime(), Some(Duration::from_secs(600)), "also after a reload");
        let third = provider(idp().access_lifetime(Duration::from_secs(60)), Some(&first)).unwrap();
        assert_eq!(third.usual_lifetime(), Some(Duration::from_secs(60)));
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        assert!(provider(presets::oauth2("no url", "id", "ts-test-secret-x"), None).is_err());
    }
}

//! A circuit breaker that lets a single request probe. Pure.

use std::time::Duration;

use super::backoff::BackoffPolicy;
use crate::{error::Cause, model::BootTime};

/// The shortest wait that other requests are given while a request probes.
pub(super) const WHILE_PROBING: Duration = Duration::from_secs(1);

/// The gate is closed: no request may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GateClosed {
    /// How long the gate stays closed, as far as known.
    pub(crate) wait: Duration,
    pub(crate) cause: Cause,
}

/// Lets every request pass, or none but a probe from time to time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Breaker {
    policy: BackoffPolicy,
    /// Consecutive failures that opened it or kept it open.
    failures: u32,
    open: Option<OpenBreaker>,
}

#[derive(Clone, Copy, Debug)]
struct OpenBreaker {
    until: BootTime,
    probing: bool,
}

impl Breaker {
    pub(super) const fn new(policy: BackoffPolicy) -> Self {
        Self { policy, failures: 0, open: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Returns how long no request may pass.
    pub(super) fn closed(&self, now: BootTime) -> Option<Duration> {
        let OpenBreaker { until, probing } = self.open?;
        let wait = if probing { until.since(now).max(WHILE_PROBING) } else { until.since(now) };
        (!wait.is_zero()).then_some(wait)
    }

    /// Returns for how long a probe has been possible without one.
    pub(super) fn overdue(&self, now: BootTime) -> Duration {
        self.open.filter(|open| !open.probing).map_or(Duration::ZERO, |open| now.since(open.until))
    }

    /// Lets a request pass. Returns whether it is the probe.
    pub(super) fn probe(&mut self) -> bool {
        self.open.as_mut().is_some_and(|open| !std::mem::replace(&mut open.probing, true))
    }

    pub(super) fn give_back(&mut self, probe: bool) {
        if let Some(open) = self.open.as_mut().filter(|_| probe) {
            open.probing = false;
        }
    }

    pub(super) fn probe_now(&mut self, now: BootTime) {
        if let Some(open) = &mut self.open {
            open.until = open.until.min(now);
        }
    }

    /// Closes the breaker after a success. Returns whether it was open.
    pub(super) fn succeed(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// Opens the breaker, or keeps it open after a failed probe. Returns the wait if it was not open before.
    pub(super) fn fail(&mut self, probe: bool, now: BootTime, random: u64) -> Option<Duration> {
        if self.is_open() && !probe {
            // The request was sent before the breaker opened.
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let wait = self.policy.half_jittered(self.failures, random);
        let before = self.open.replace(OpenBreaker { until: now + wait, probing: false });
        before.is_none().then_some(wait)
    }
}

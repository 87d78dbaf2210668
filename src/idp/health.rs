//! What is known of a provider's health, and what follows for the next request. Pure; all times are boot time.
//!
//! Three things close the way to a provider: it asked to slow down, it does not answer (an outage), or it refuses a
//! client of ours (a pause of that client alone, because only an operator can mend it). The last two are circuit
//! breakers: once in a while a single request probes, and its answer opens the way for all.

use std::time::Duration;

use super::{
    backoff::{OPERATOR_BACKOFF, OUTAGE, Policy, THROTTLE},
    outcome::{IdpFailure, Outcome},
    provider::Idp,
    rule::Meaning,
};
use crate::{clock::Reading, error::Cause, model::Time};

/// Failures in a row that make an outage. One alone may be a matter of one grant.
const OUTAGE_FROM: u32 = 5;

/// Nobody else is told to come back earlier than this while a request probes.
const WHILE_PROBING: Duration = Duration::from_secs(1);

/// No provider is left alone for longer than this, whatever it asks for.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);

/// The way to the provider is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GateClosed {
    /// For how long, as far as is known.
    pub(crate) wait: Duration,
    pub(crate) cause: Cause,
}

/// What an answer says about the provider rather than about the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observation {
    /// It answers, and knows the client.
    Well,
    /// It refuses the client or what it asks for.
    ClientRefused,
    /// It asks to slow down: for so long, if it says so.
    Throttled(Option<Duration>),
    /// It does not answer as it should; some say for how long.
    Ill(Option<Duration>),
}

impl Observation {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Refreshed(_) | Outcome::InvalidGrant(_) => Self::Well,
            Outcome::Unknown(failure) => Self::Ill(failure.retry_after),
            Outcome::NotSpent(failure) => match (failure.meaning, failure.retry_after) {
                (Meaning::OperatorFault, _) => Self::ClientRefused,
                (Meaning::Throttled, asked) | (_, asked @ Some(_)) => Self::Throttled(asked),
                // Not even connected.
                (Meaning::Transient, None) if failure.evidence.status.is_none() => Self::Ill(None),
                _ => Self::Well,
            },
        }
    }

    /// By the answer to a revocation, in which no token can be lost: only its status tells trouble from an answer.
    pub(crate) fn of_revocation(revoked: &Result<(), IdpFailure>) -> Self {
        match revoked {
            Ok(()) => Self::Well,
            Err(failure) if failure.evidence.status.is_none_or(|status| status >= 500) => {
                Self::Ill(failure.retry_after)
            }
            Err(failure) => Self::of(&Outcome::NotSpent(failure.clone())),
        }
    }
}

/// What everybody should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthChange {
    /// Requests are held back from now on; the next one probes after `wait`.
    Paused { cause: Cause, wait: Duration },
    /// They are no longer.
    Recovered { cause: Cause },
}

/// The right to send one request, and what hangs on its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Which of the client's logins.
    pub(crate) login: usize,
    /// The place of its secret among the provider's clients.
    pub(crate) client: usize,
    probes_outage: bool,
    probes_pause: bool,
}

/// What is known of one provider.
#[derive(Debug)]
pub(super) struct Health {
    not_before: Time,
    /// How often in a row it asked to slow down without saying for how long.
    throttled: u32,
    outage: Breaker,
    logins: Vec<Login>,
    /// When the last pause or outage ended, or the settings changed.
    recovered: Option<Reading>,
}

/// One client and its secrets, in the order in which they are tried.
#[derive(Debug)]
struct Login {
    client_id: String,
    /// Places among the provider's clients.
    secrets: Vec<usize>,
    /// The one in use: the last that was not refused.
    current: usize,
    /// How many were refused in a row.
    refused: usize,
    pause: Breaker,
    accused: Accused,
    /// Whose request was refused while another's was not: the fault is that grant's own.
    own_fault: Option<u64>,
}

/// Whose requests were refused since the last one that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accused {
    Nobody,
    Grant(u64),
    /// More than one grant's: it is the client.
    Client,
}

impl Health {
    pub(super) fn new(idp: &Idp) -> Self {
        let mut logins: Vec<Login> = Vec::new();
        for (place, client) in idp.clients.iter().enumerate() {
            match logins.iter_mut().find(|login| login.client_id == client.client_id) {
                Some(login) => login.secrets.push(place),
                None => logins.push(Login::new(client.client_id.clone(), place)),
            }
        }
        Self { not_before: Time(0), throttled: 0, outage: Breaker::new(OUTAGE_FROM, OUTAGE), logins, recovered: None }
    }

    /// For new settings: what the provider asked for stands, what an operator may have mended is tried anew.
    pub(super) fn reconfigured(&self, idp: &Idp, now: Reading) -> Self {
        let Self { not_before, throttled, outage, .. } = *self;
        Self { not_before, throttled, outage, recovered: Some(now), ..Self::new(idp) }
    }

    /// The login of a grant that was issued to this client; the first client's if that is not known.
    pub(super) fn client_index(&self, client_id: Option<&str>) -> Option<usize> {
        match client_id {
            None => Some(0),
            Some(id) => self.logins.iter().position(|login| login.client_id == id),
        }
    }

    /// Whether nobody may ask now, whatever the client.
    pub(super) fn closed(&self, now: Time) -> Option<GateClosed> {
        let pauses = self.logins.iter().map(|login| login.pause.closed(now));
        let paused = pauses.min().flatten().map(|wait| GateClosed { wait, cause: Cause::ClientRefused });
        self.closed_for_all(now).or(paused)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.logins.iter().any(|login| login.pause.is_open())
    }

    pub(super) fn is_broken(&self) -> bool {
        self.outage.is_open() || self.is_paused()
    }

    fn closed_for_all(&self, now: Time) -> Option<GateClosed> {
        let asked = self.not_before.since(now).min(LONGEST_ASKED);
        if !asked.is_zero() {
            return Some(GateClosed { wait: asked, cause: Cause::IdpThrottled });
        }
        self.outage.closed(now).map(|wait| GateClosed { wait, cause: Cause::IdpDown })
    }

    /// Whether this login may ask now.
    pub(super) fn closed_to(&self, login: usize, now: Time) -> Option<GateClosed> {
        let paused = self.logins[login].pause.closed(now).map(|wait| GateClosed { wait, cause: Cause::ClientRefused });
        self.closed_for_all(now).or(paused)
    }

    /// Lets one request of this login through.
    pub(super) fn admit(&mut self, login: usize, now: Time) -> Result<Admitted, GateClosed> {
        if let Some(closed) = self.closed_to(login, now) {
            return Err(closed);
        }
        let (probes_outage, asked) = (self.outage.probe(), &mut self.logins[login]);
        let probes_pause = asked.pause.probe();
        Ok(Admitted { login, client: asked.secrets[asked.current], probes_outage, probes_pause })
    }

    /// The request was not sent, or nothing can be learnt from it: somebody else may probe.
    pub(super) fn give_back(&mut self, admitted: Admitted) {
        self.outage.give_back(admitted.probes_outage);
        self.logins[admitted.login].pause.give_back(admitted.probes_pause);
    }

    /// Learns from the answer to a request of the grant `who`. True beside the notices: the client has another
    /// secret, to be tried at once.
    pub(super) fn report(
        &mut self,
        admitted: Admitted,
        said: Observation,
        who: u64,
        now: Reading,
        random: u64,
    ) -> (Vec<HealthChange>, bool) {
        let (mut notices, mut again) = (Vec::new(), false);
        if let Observation::Ill(asked) = said {
            self.close(asked, now.boot);
            if let Some(wait) = self.outage.ill(admitted.probes_outage, now.boot, random) {
                notices.push(HealthChange::Paused { cause: Cause::IdpDown, wait });
            }
            // It says nothing about the client.
            self.logins[admitted.login].pause.give_back(admitted.probes_pause);
            return (notices, again);
        }
        if self.outage.well() {
            self.recovered = Some(now);
            notices.push(HealthChange::Recovered { cause: Cause::IdpDown });
        }
        let login = &mut self.logins[admitted.login];
        match said {
            Observation::Throttled(asked) => {
                login.pause.give_back(admitted.probes_pause);
                self.throttled = self.throttled.saturating_add(1);
                let asked = asked.unwrap_or_else(|| THROTTLE.half_jittered(self.throttled, random));
                self.close(Some(asked), now.boot);
            }
            Observation::ClientRefused if login.own_fault == Some(who) && !login.pause.is_open() => {}
            Observation::ClientRefused => {
                again = login.try_next(admitted.client);
                login.accused = match login.accused {
                    Accused::Nobody => Accused::Grant(who),
                    Accused::Grant(first) if first == who => login.accused,
                    Accused::Grant(_) | Accused::Client => Accused::Client,
                };
                if again {
                    login.pause.give_back(admitted.probes_pause);
                } else if let Some(wait) = login.pause.ill(admitted.probes_pause, now.boot, random) {
                    notices.push(HealthChange::Paused { cause: Cause::ClientRefused, wait });
                }
            }
            Observation::Well | Observation::Ill(_) => {
                self.throttled = 0;
                (login.refused, login.own_fault) = (0, login.own_fault.filter(|grant| *grant != who));
                match std::mem::replace(&mut login.accused, Accused::Nobody) {
                    Accused::Grant(accused) if accused != who => login.own_fault = Some(accused),
                    _ => {}
                }
                if login.pause.well() {
                    self.recovered = Some(now);
                    notices.push(HealthChange::Recovered { cause: Cause::ClientRefused });
                }
            }
        }
        (notices, again)
    }

    /// The next request of everybody is a probe, now.
    pub(super) fn probe_now(&mut self, now: Time) {
        self.outage.probe_now(now);
        self.logins.iter_mut().for_each(|login| login.pause.probe_now(now));
    }

    pub(super) fn recovered(&self) -> Option<Reading> {
        self.recovered
    }

    fn close(&mut self, asked: Option<Duration>, now: Time) {
        if let Some(asked) = asked {
            self.not_before = self.not_before.max(now + asked.min(LONGEST_ASKED));
        }
    }
}

impl Login {
    fn new(client_id: String, place: usize) -> Self {
        let pause = Breaker::new(1, OPERATOR_BACKOFF);
        Self {
            client_id,
            secrets: vec![place],
            current: 0,
            refused: 0,
            pause,
            accused: Accused::Nobody,
            own_fault: None,
        }
    }

    /// Goes on to the next secret after this one was refused; false once all were.
    fn try_next(&mut self, client: usize) -> bool {
        if self.secrets[self.current] != client {
            // Sent before another answer moved on.
            return self.refused < self.secrets.len();
        }
        self.current = (self.current + 1) % self.secrets.len();
        self.refused += 1;
        let more = self.refused < self.secrets.len();
        if !more {
            self.refused = 0;
        }
        more
    }
}

/// A circuit breaker with a single probe.
#[derive(Clone, Copy, Debug)]
struct Breaker {
    /// It opens with so many failures in a row.
    threshold: u32,
    policy: Policy,
    failures: u32,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Time,
    probing: bool,
}

impl Breaker {
    const fn new(threshold: u32, policy: Policy) -> Self {
        Self { threshold, policy, failures: 0, open: None }
    }

    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// For how long nobody may pass.
    fn closed(&self, now: Time) -> Option<Duration> {
        let Open { until, probing } = self.open?;
        let wait = if probing { until.since(now).max(WHILE_PROBING) } else { until.since(now) };
        (!wait.is_zero()).then_some(wait)
    }

    /// Somebody passes. True if that is the probe.
    fn probe(&mut self) -> bool {
        self.open.as_mut().is_some_and(|open| !std::mem::replace(&mut open.probing, true))
    }

    fn give_back(&mut self, probe: bool) {
        if let Some(open) = self.open.as_mut().filter(|_| probe) {
            open.probing = false;
        }
    }

    fn probe_now(&mut self, now: Time) {
        if let Some(open) = &mut self.open {
            open.until = open.until.min(now);
        }
    }

    /// True if it was open.
    fn well(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// A failure. The wait, if it opens with it.
    fn ill(&mut self, probe: bool, now: Time, random: u64) -> Option<Duration> {
        if self.is_open() && !probe {
            // Sent before it opened.
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.threshold {
            return None;
        }
        let wait = self.policy.half_jittered(self.failures - self.threshold + 1, random);
        let before = self.open.replace(Open { until: now + wait, probing: false });
        before.is_none().then_some(wait)
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;

//! The health of a provider, learnt from its responses, and whether the next request may be sent. Pure; all times are
//! boot time.
//!
//! Four conditions close the gate: the provider asked to slow down, it does not respond (an outage), it refuses
//! unusually many refresh tokens (a surge), or it refuses one of the configured clients (a pause of that client alone,
//! because only an operator can resolve it). Outage, surge and pause are circuit breakers: from time to time a single
//! request probes, and a good response opens the gate for all.

use std::time::Duration;

use super::{
    backoff::{OPERATOR_BACKOFF, OUTAGE_BACKOFF, THROTTLE_BACKOFF},
    breaker::{Breaker, GateClosed, WHILE_PROBING},
    outcome::{IdpFailure, ResponseOutcome},
    provider::Idp,
    rule::Meaning,
    surge::{Surge, SurgeSight},
    suspects::Suspects,
};
use crate::{
    clock::Reading,
    code::EvidenceCode,
    error::Cause,
    model::{BootTime, WallTime},
};

/// If no other grant probes an outage for so long, one that is accused may.
const ACCUSED_PROBES_AFTER: Duration = Duration::from_secs(30);

/// The longest wait that a provider may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);

/// What a response says about the provider rather than about the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observation {
    /// Nothing was sent, for a reason of the grant's.
    Nothing,
    /// The provider responds and accepts the client.
    Healthy,
    /// The provider gave tokens.
    Renewed,
    /// The provider accepts the client, and refuses the refresh token.
    Refused,
    /// The provider refuses the client or what the client requests.
    ClientRefused,
    /// The provider asks to slow down, for this long if it says so.
    Throttled(Option<Duration>),
    /// The provider does not respond as it should, for this long if it says so.
    Unhealthy(Option<Duration>),
}

impl Observation {
    /// Reads the outcome of a refresh. A refusal of a token that may have been spent before says nothing about others.
    pub(crate) fn of(outcome: &ResponseOutcome, sent_before: bool) -> Self {
        match outcome {
            ResponseOutcome::Refreshed(tokens) => match &tokens.access_token {
                Ok(_) => Self::Renewed,
                Err(failure) if failure.evidence.status == Some(429) => Self::Throttled(failure.retry_after),
                Err(_) => Self::Healthy,
            },
            ResponseOutcome::InvalidGrant(_) if sent_before => Self::Healthy,
            ResponseOutcome::InvalidGrant(_) => Self::Refused,
            ResponseOutcome::Unknown(failure) => Self::Unhealthy(failure.retry_after),
            ResponseOutcome::NotSpent(failure) => match (failure.meaning, failure.retry_after) {
                _ if failure.evidence.code == EvidenceCode::BadRequest.as_str() => Self::Nothing,
                (Meaning::OperatorFault, _) => Self::ClientRefused,
                (Meaning::Throttled, asked) | (_, asked @ Some(_)) => Self::Throttled(asked),
                // The connection failed.
                (Meaning::Transient, None) if failure.evidence.status.is_none() => Self::Unhealthy(None),
                _ => Self::Healthy,
            },
        }
    }

    /// Reads the response to a revocation or a probe. No token can be lost in it, so only a missing or 5xx status is unhealthy.
    pub(crate) fn of_revocation(revoked: &Result<(), IdpFailure>) -> Self {
        match revoked {
            Ok(()) => Self::Healthy,
            Err(failure) if failure.evidence.status.is_none_or(|status| status >= 500) => {
                Self::Unhealthy(failure.retry_after)
            }
            Err(failure) => Self::of(&ResponseOutcome::NotSpent(failure.clone()), false),
        }
    }
}

/// A change of a provider's health that applications and operators should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthChange {
    /// Requests are held back from now on; the next request probes after `wait`.
    Paused { cause: Cause, wait: Duration },
    /// Requests are no longer held back.
    Recovered { cause: Cause },
}

/// The permission to send one request, and what its response decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// The index of the client.
    pub(crate) client: usize,
    /// The index of the client's credentials in [`Idp::clients`].
    pub(crate) credentials: usize,
    probes_outage: bool,
    probes_surge: bool,
    probes_pause: bool,
}

/// The health of one provider.
#[derive(Debug)]
pub(super) struct IdpHealth {
    not_before: BootTime,
    /// Consecutive requests to slow down.
    throttled: u32,
    outage: Breaker,
    suspects: Suspects,
    surge: Surge,
    clients: Vec<ClientHealth>,
    /// When the last pause or outage ended, or the settings changed.
    recovered: Option<Reading>,
}

/// The health of one client, with its secrets in the order in which they are tried.
#[derive(Debug)]
struct ClientHealth {
    client_id: String,
    /// Indexes of the client's credentials in [`Idp::clients`].
    secrets: Vec<usize>,
    /// The secret in use: the last one that was accepted.
    current: usize,
    /// How many secrets were refused in a row.
    refused: usize,
    pause: Breaker,
    refused_grants: RefusedGrants,
    /// The grant whose request was refused while another grant's was accepted: the fault lies with that grant alone.
    faulty_grant: Option<u64>,
}

/// The grants whose requests were refused since the last accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefusedGrants {
    None,
    One(u64),
    /// Requests of several grants were refused, so the fault lies with the client.
    Several,
}

impl IdpHealth {
    pub(super) fn new(idp: &Idp) -> Self {
        let mut clients: Vec<ClientHealth> = Vec::new();
        for (index, credentials) in idp.clients.iter().enumerate() {
            match clients.iter_mut().find(|client| client.client_id == credentials.client_id) {
                Some(client) => client.secrets.push(index),
                None => clients.push(ClientHealth::new(credentials.client_id.clone(), index)),
            }
        }
        let outage = Breaker::new(OUTAGE_BACKOFF);
        let (suspects, surge) = (Suspects::default(), Surge::new());
        Self { not_before: BootTime(0), throttled: 0, outage, suspects, surge, clients, recovered: None }
    }

    /// Returns the health under new settings. A wait that the provider asked for, an outage and a surge remain; the surge's
    /// next canary and the clients that were paused are tried at once, because the operator may have corrected something.
    pub(super) fn reconfigured(&self, idp: &Idp, now: Reading) -> Self {
        let Self { not_before, throttled, mut outage, .. } = *self;
        let (suspects, mut surge) = (self.suspects.clone(), self.surge.clone());
        // The response to a probe that is under way is reported to the old gate.
        outage.give_back(true);
        surge.forget_canary();
        surge.probe_now(now.boot);
        Self { not_before, throttled, outage, suspects, surge, recovered: Some(now), ..Self::new(idp) }
    }

    /// Returns the index of the client that a grant was issued to, or of the first client if that is not known.
    pub(super) fn client_index(&self, client_id: Option<&str>) -> Option<usize> {
        match client_id {
            None => Some(0),
            Some(id) => self.clients.iter().position(|client| client.client_id == id),
        }
    }

    /// Returns why no client may send a request now, of a grant of which nothing is known.
    pub(super) fn closed(&self, now: BootTime) -> Option<GateClosed> {
        self.closed_to_all_clients(None, now)
    }

    /// Returns why no client may send a request of this grant now.
    pub(super) fn closed_to_grant(&self, grant: u64, now: BootTime) -> Option<GateClosed> {
        self.closed_to_all_clients(Some(grant), now)
    }

    fn closed_to_all_clients(&self, grant: Option<u64>, now: BootTime) -> Option<GateClosed> {
        let pauses = self.clients.iter().map(|client| client.pause.closed(now));
        let paused = pauses.min().flatten().map(|wait| GateClosed { wait, cause: Cause::ClientRefused });
        self.closed_for(grant, now).or(paused)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.clients.iter().any(|client| client.pause.is_open())
    }

    pub(super) fn is_broken(&self) -> bool {
        self.outage.is_open() || self.surge.sight(BootTime(0)).is_some() || self.is_paused()
    }

    /// Returns why no request of this grant, or of one of which nothing is known, may be sent now, whatever its client.
    fn closed_for(&self, grant: Option<u64>, now: BootTime) -> Option<GateClosed> {
        let asked = self.not_before.since(now).min(LONGEST_ASKED);
        if !asked.is_zero() {
            return Some(GateClosed { wait: asked, cause: Cause::IdpThrottled });
        }
        // A grant that is accused would be a probe that says nothing, unless no other comes.
        let accused = self.outage.is_open() && grant.is_some_and(|grant| self.suspects.is_accused(grant));
        let accused = accused && self.outage.overdue(now) < ACCUSED_PROBES_AFTER;
        let outage = self.outage.closed(now).or(accused.then_some(WHILE_PROBING));
        let outage = outage.map(|wait| GateClosed { wait, cause: Cause::IdpDown });
        outage.or_else(|| self.surge.closed_to(grant, now))
    }

    /// Returns why this client may not send a request of this grant now.
    pub(super) fn closed_to(&self, client: usize, grant: u64, now: BootTime) -> Option<GateClosed> {
        let paused =
            self.clients[client].pause.closed(now).map(|wait| GateClosed { wait, cause: Cause::ClientRefused });
        self.closed_for(Some(grant), now).or(paused)
    }

    /// Admits one request of this client for this grant.
    pub(super) fn admit(&mut self, client: usize, grant: u64, now: BootTime) -> Result<Admission, GateClosed> {
        if let Some(closed) = self.closed_to(client, grant, now) {
            return Err(closed);
        }
        let (probes_outage, probes_surge) = (self.outage.probe(), self.surge.probe());
        let health = &mut self.clients[client];
        let probes_pause = health.pause.probe();
        let credentials = health.secrets[health.current];
        Ok(Admission { client, credentials, probes_outage, probes_surge, probes_pause })
    }

    /// Releases an admission whose request was not sent or shows nothing: another request may probe.
    pub(super) fn give_back(&mut self, admission: Admission) {
        self.outage.give_back(admission.probes_outage);
        self.surge.give_back(admission.probes_surge);
        self.clients[admission.client].pause.give_back(admission.probes_pause);
    }

    /// Updates the health by the response to a request of `grant`. The flag beside the changes says that the client has
    /// another secret, to be tried immediately.
    pub(super) fn report(
        &mut self,
        admission: Admission,
        observed: Observation,
        grant: u64,
        now: Reading,
        random: u64,
    ) -> (Vec<HealthChange>, bool) {
        let (mut changes, mut try_next_secret) = (Vec::new(), false);
        if observed == Observation::Nothing {
            self.give_back(admission);
            return (changes, try_next_secret);
        }
        if let Observation::Unhealthy(asked) = observed {
            self.close(asked, now.boot);
            // A failed probe counts also if its grant is a suspect.
            let counts = self.suspects.fails(grant) || admission.probes_outage;
            if counts && let Some(wait) = self.outage.fail(admission.probes_outage, now.boot, random) {
                changes.push(HealthChange::Paused { cause: Cause::IdpDown, wait });
            }
            // Otherwise the response says nothing about the provider, and in any case nothing about tokens and the client.
            self.give_back(admission);
            return (changes, try_next_secret);
        }
        self.suspects.succeeds(grant);
        if self.outage.succeed() {
            self.recovered = Some(now);
            changes.push(HealthChange::Recovered { cause: Cause::IdpDown });
        }
        changes.extend(self.judge_token(admission, observed, grant, now, random));
        let client = &mut self.clients[admission.client];
        match observed {
            Observation::Throttled(asked) => {
                client.pause.give_back(admission.probes_pause);
                self.throttled = self.throttled.saturating_add(1);
                // What the provider asks for makes the wait longer, never shorter.
                let own = THROTTLE_BACKOFF.half_jittered(self.throttled, random);
                self.close(Some(asked.unwrap_or_default().max(own)), now.boot);
            }
            Observation::ClientRefused if client.faulty_grant == Some(grant) && !client.pause.is_open() => {}
            Observation::ClientRefused => {
                try_next_secret = client.try_next(admission.credentials);
                client.refused_grants = match client.refused_grants {
                    RefusedGrants::None => RefusedGrants::One(grant),
                    RefusedGrants::One(first) if first == grant => client.refused_grants,
                    RefusedGrants::One(_) | RefusedGrants::Several => RefusedGrants::Several,
                };
                if try_next_secret {
                    client.pause.give_back(admission.probes_pause);
                } else if let Some(wait) = client.pause.fail(admission.probes_pause, now.boot, random) {
                    changes.push(HealthChange::Paused { cause: Cause::ClientRefused, wait });
                }
            }
            Observation::Nothing
            | Observation::Healthy
            | Observation::Renewed
            | Observation::Refused
            | Observation::Unhealthy(_) => {
                self.throttled = 0;
                (client.refused, client.faulty_grant) = (0, client.faulty_grant.filter(|faulty| *faulty != grant));
                match std::mem::replace(&mut client.refused_grants, RefusedGrants::None) {
                    RefusedGrants::One(refused) if refused != grant => client.faulty_grant = Some(refused),
                    _ => {}
                }
                if client.pause.succeed() {
                    self.recovered = Some(now);
                    changes.push(HealthChange::Recovered { cause: Cause::ClientRefused });
                }
            }
        }
        (changes, try_next_secret)
    }

    /// Updates the surge by what the response says of the grant's refresh token.
    fn judge_token(
        &mut self,
        admission: Admission,
        observed: Observation,
        grant: u64,
        now: Reading,
        random: u64,
    ) -> Option<HealthChange> {
        let cause = Cause::RefusalSurge;
        match observed {
            Observation::Refused => {
                let wait = self.surge.refuses(grant, admission.probes_surge, now, random)?;
                Some(HealthChange::Paused { cause, wait })
            }
            Observation::Renewed => self.surge.renews(grant, now).then_some(HealthChange::Recovered { cause }),
            _ => {
                self.surge.give_back(admission.probes_surge);
                None
            }
        }
    }

    /// Ends a surge because people say so. Returns whether there was one.
    pub(super) fn end_surge(&mut self) -> bool {
        self.surge.end()
    }

    pub(super) fn surge(&self, now: BootTime) -> Option<SurgeSight> {
        self.surge.sight(now)
    }

    /// Takes the time since which refused grants are to be tried once more.
    pub(super) fn take_refused_since(&mut self) -> Option<WallTime> {
        self.surge.take_over()
    }

    /// Lets a request of every client probe now.
    pub(super) fn probe_now(&mut self, now: BootTime) {
        self.outage.probe_now(now);
        self.surge.probe_now(now);
        self.clients.iter_mut().for_each(|client| client.pause.probe_now(now));
    }

    pub(super) fn recovered(&self) -> Option<Reading> {
        self.recovered
    }

    /// Closes the gate for as long as the provider asked.
    fn close(&mut self, asked: Option<Duration>, now: BootTime) {
        if let Some(asked) = asked {
            self.not_before = self.not_before.max(now + asked.min(LONGEST_ASKED));
        }
    }
}

impl ClientHealth {
    fn new(client_id: String, credentials: usize) -> Self {
        let (pause, refused_grants) = (Breaker::new(OPERATOR_BACKOFF), RefusedGrants::None);
        Self {
            client_id,
            secrets: vec![credentials],
            current: 0,
            refused: 0,
            pause,
            refused_grants,
            faulty_grant: None,
        }
    }

    /// Selects the next secret after this one was refused. Returns false once all secrets were refused.
    fn try_next(&mut self, credentials: usize) -> bool {
        if self.secrets[self.current] != credentials {
            // The request was sent before another response selected the next secret.
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

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;

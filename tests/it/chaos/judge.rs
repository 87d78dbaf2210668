//! The rules, by the providers' own logs, the times at which replicas lived, and what the store has at the end.
//!
//! Every refresh token that is presented again, every loss and every request without answer is explained here, or violates a
//! rule.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use token_supervisor::{
    RefreshToken,
    testing::{Kind, Outcome, Presentation, Standing, TokenId},
};

use super::{
    PATIENCE, SETTLE,
    account::{Consent, Why},
    http::Unanswered,
    providers::{Provider, sender},
    replica::{Life, Stop},
    world::World,
};

/// Why a rotated refresh token is lost, and its user must consent again. There is no other reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    /// The provider never delivered it: its reader was dead.
    NeverDelivered,
    /// The replica was killed between the response and its first persistence.
    BeforePersistence,
    /// The token was sent again after the grace, because those who sent it before had died.
    AfterGrace,
    /// The provider counts only the latest of several responses to one token, and that one died with its replica as above. The
    /// response that is stored is worth nothing.
    Overtaken,
    /// Whether the token was spent could not be found out before the access token expired: its sender was away.
    InDoubt,
}

/// What is counted for each provider.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) requests: usize,
    pub(super) rotations: usize,
    /// Tokens that were sent again and accepted: within a grace, or not processed the first time.
    pub(super) resent: usize,
    /// Tokens that were sent again, after their first sender had died with the response, and refused.
    pub(super) refused: usize,
    /// Tokens that were refused because a later response to their parent had replaced them.
    pub(super) superseded: usize,
    /// Responses that nobody read in time.
    pub(super) late: usize,
    pub(super) lost: BTreeMap<Reason, usize>,
    pub(super) disconnects: usize,
}

#[derive(Default)]
pub(super) struct Judged {
    pub(super) violations: Vec<String>,
    pub(super) sums: BTreeMap<&'static str, Sums>,
    /// Requests of callers that were cut off by the end of their replica.
    pub(super) cut_off: usize,
    /// Requests of providers whose sender was killed or frozen before it had the response.
    pub(super) hit: usize,
    /// The longest time for which a replica ran that was killed with a response that it had not persisted.
    pub(super) longest: Duration,
}

/// A request, and the process that sent it.
struct Sent<'a> {
    one: &'a Presentation,
    life: Life,
    replica: usize,
}

/// The clocks of database and machine are one, but are read at different times.
const BLUR: Duration = Duration::from_millis(300);

/// How long a replica may take, on a busy machine, from a response to its first persistence.
const PERSISTED_WITHIN: Duration = Duration::from_secs(3);

/// How long a replica may take, on a busy machine, from its last look at the clock to the end of its request.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// How long a request may lie unread on a busy machine. One that was not read is not waited for when a replica is terminated.
const READ_WITHIN: Duration = Duration::from_secs(2);

pub(super) fn judge(world: &World, stored: &[Option<RefreshToken>]) -> Judged {
    let mut judged = Judged { violations: std::mem::take(&mut *world.violations.lock().unwrap()), ..Judged::default() };
    let is_quiet = judged.violations.is_empty();
    let lives: Vec<_> = world.replicas.iter().map(|replica| replica.lives()).collect();
    for (number, provider) in world.providers.0.iter().enumerate() {
        let log = provider.sim.presentations();
        let mut of: HashMap<&str, Vec<Sent<'_>>> = HashMap::new();
        for one in &log {
            let Some(token) = &one.token else {
                judged.violations.push(format!("{}: a token is presented that was never issued", provider.name));
                continue;
            };
            of.entry(&token.user).or_default().push(Sent::of(one, &lives));
        }
        let accounts = world.accounts.iter().zip(stored).filter(|(account, _)| account.provider == number);
        for (account, stored) in accounts {
            let consents = account.consents();
            for (consent, next) in consents.iter().zip(consents.iter().skip(1).map(Some).chain([None])) {
                let sent = of.remove(&*consent.subject).unwrap_or_default();
                judged.judge_family(provider, consent, &sent, next);
            }
            // A run that was cut short by a violation has left something under way.
            if is_quiet {
                judged.judge_the_end(provider, consents.last(), stored.as_ref());
            }
        }
    }
    judged.judge_callers(world, &lives);
    judged
}

impl Judged {
    /// Whether the plan has met refreshes in flight and callers that waited.
    pub(super) fn has_hit(&self) -> bool {
        self.hit >= 3 && self.cut_off >= 3
    }

    fn sums(&mut self, provider: &Provider) -> &mut Sums {
        self.sums.entry(provider.name).or_default()
    }

    /// What was sent for one consent.
    fn judge_family(&mut self, provider: &Provider, consent: &Consent, sent: &[Sent<'_>], next: Option<&Consent>) {
        let mut before: HashMap<&TokenId, Vec<&Sent<'_>>> = HashMap::new();
        for second in sent {
            let Some(token) = &second.one.token else { continue };
            let firsts = before.entry(token).or_default();
            if let Some(first) = firsts.iter().find(|first| !may_be_followed(first, second, provider.kind)) {
                self.violations.push(format!(
                    "{}: a token is sent again although the first response can still come: {} then {}",
                    provider.name,
                    first.tell(),
                    second.tell()
                ));
            }
            self.count(provider, second, firsts);
            firsts.push(second);
        }
        let Some(next) = next else { return };
        match &next.why {
            Why::First => {}
            Why::Disconnected => self.sums(provider).disconnects += 1,
            Why::Required(reason) => match named(provider.kind, reason, sent, next.at) {
                Ok((reason, ran)) => {
                    *self.sums(provider).lost.entry(reason).or_default() += 1;
                    self.longest = self.longest.max(ran);
                }
                Err(why) => {
                    let story: Vec<_> = sent.iter().map(Sent::tell).collect();
                    self.violations.push(format!(
                        "{}: the user of {} must reconnect ({reason}) and {why}: {story:#?}",
                        provider.name, consent.subject
                    ));
                }
            },
        }
    }

    fn count(&mut self, provider: &Provider, sent: &Sent<'_>, firsts: &[&Sent<'_>]) {
        let in_flight_until = sent.one.answered_at.unwrap_or(sent.one.at + PATIENCE);
        let ended = sent.life.stopped.is_some_and(|(how, at)| how == Stop::Kill && at <= in_flight_until);
        let froze = !sent.life.froze(sent.one.at, in_flight_until).is_zero();
        self.hit += usize::from(ended || froze);
        let sums = self.sums.entry(provider.name).or_default();
        sums.requests += 1;
        sums.late +=
            usize::from(is_late(sent.one) && sent.life.ended.is_none_or(|ended| ended > sent.one.at + PATIENCE));
        match sent.one.outcome {
            Outcome::Rotated | Outcome::Renewed if firsts.is_empty() => sums.rotations += 1,
            Outcome::Rotated | Outcome::Renewed | Outcome::Replayed => sums.resent += 1,
            Outcome::Refused if !sent.one.duplicate && matches!(provider.kind, Kind::LastWins { .. }) => {
                sums.superseded += 1;
            }
            Outcome::Refused | Outcome::KilledFamily if firsts.is_empty() => {
                self.violations.push(format!(
                    "{}: a token is refused at its first use: {}",
                    provider.name,
                    sent.tell()
                ));
            }
            Outcome::Refused | Outcome::KilledFamily => sums.refused += 1,
            Outcome::NotProcessed => {}
        }
    }

    /// The store has the token that counts.
    fn judge_the_end(&mut self, provider: &Provider, consent: Option<&Consent>, stored: Option<&RefreshToken>) {
        let subject = consent.map(|consent| &*consent.subject).unwrap_or_default();
        let Some(stored) = stored else {
            return self.violations.push(format!("{}: nothing is stored of {subject}", provider.name));
        };
        let (standing, id) = (provider.sim.standing(stored), provider.sim.token_id(stored));
        if standing != Standing::Current || id.as_ref().is_none_or(|id| &*id.user != subject) {
            self.violations.push(format!("{}: {id:?} is stored of {subject}, which is {standing:?}", provider.name));
        }
    }

    /// Only the end of a replica leaves a caller without answer, and a replica that is terminated answers those that wait.
    fn judge_callers(&mut self, world: &World, lives: &[Vec<Life>]) {
        for asked in &*world.unanswered.lock().unwrap() {
            let Err(Unanswered::Broken(error)) = &asked.answer else { continue };
            let life = &lives[asked.replica][asked.life];
            let is_cut_off = match life.stopped {
                Some((Stop::Kill, at)) => at <= asked.done,
                Some((Stop::Terminate, at)) => at <= asked.done && life.ran(asked.at, at) < READ_WITHIN,
                Some((Stop::Refuse, _)) | None => false,
            };
            self.cut_off += usize::from(is_cut_off);
            if !is_cut_off {
                let Life { stopped, ended, .. } = life;
                self.violations.push(format!(
                    "{} of replica {} is not answered ({error}): asked at {:?}, until {:?}, replica stopped {stopped:?}, \
                     ended {ended:?}",
                    asked.verb, asked.replica, asked.at, asked.done
                ));
            }
        }
        for suspicion in std::mem::take(&mut *world.suspicions.lock().unwrap()) {
            let provider = world.providers.0.iter().find(|provider| provider.name == suspicion.provider);
            let log = provider.map(|provider| provider.sim.presentations()).unwrap_or_default();
            let with_family = log.iter().any(|one| {
                one.outcome == Outcome::KilledFamily && one.processed_at.is_some_and(|at| near(at, suspicion.died))
            });
            if !with_family {
                self.violations.push(suspicion.what);
            }
        }
    }
}

/// Whether a token may be sent again, after `first`.
fn may_be_followed(first: &Sent<'_>, second: &Sent<'_>, kind: Kind) -> bool {
    let again = second.one.at;
    let settled = |from: SystemTime| again + BLUR >= from + SETTLE;
    // What was accepted once more was within its grace, and what was never processed is not spent.
    if kind.grace().is_some() && second.one.outcome == Outcome::Replayed {
        // A replica that stood still between its last look at the clock and the write sends when it goes on.
        return settled(first.one.at) || second.life.thawed(again - WRITTEN_WITHIN, again).next().is_some();
    }
    let is_dead = first.life.ended.is_some_and(&settled);
    let gave_up = is_late(first.one) && settled(first.one.at + PATIENCE);
    is_dead || gave_up
}

/// Whether the response came after its sender had stopped waiting for it, or not at all.
fn is_late(one: &Presentation) -> bool {
    one.answered_at.is_none_or(|at| at > one.at + PATIENCE)
}

/// Names the loss after which the user had to consent again, and how long a killed replica ran with the response.
fn named(kind: Kind, reason: &str, sent: &[Sent<'_>], at: SystemTime) -> Result<(Reason, Duration), &'static str> {
    match reason {
        "invalid_grant" => {
            let is_refused = |sent: &&Sent<'_>| matches!(sent.one.outcome, Outcome::Refused | Outcome::KilledFamily);
            let refused = sent.iter().rfind(is_refused).ok_or("no token was refused")?;
            let overtaken = matches!(kind, Kind::LastWins { .. }) && !refused.one.duplicate;
            let of_it = |first: &&Sent<'_>| {
                let spent = first.one.token == refused.one.token || (overtaken && first.one.given != refused.one.token);
                spent && first.one.given.is_some() && first.one.processed_at < Some(refused.one.at)
            };
            let first = sent.iter().filter(of_it).max_by_key(|first| first.one.processed_at);
            let first = first.ok_or("the refused token was never spent")?;
            let Some((Stop::Kill, _)) = first.life.stopped else { return Err("its sender was not killed") };
            let ended = first.life.ended.filter(|ended| *ended < refused.one.at).ok_or("its sender was alive")?;
            let answered = first.one.answered_at.filter(|at| *at <= ended);
            let ran = answered.map_or(Duration::ZERO, |answered| first.life.ran(answered, ended));
            if ran > PERSISTED_WITHIN {
                return Err("its sender had the time to store the response");
            }
            let lost = match kind.grace() {
                Some(_) if overtaken => Reason::Overtaken,
                Some(_) => Reason::AfterGrace,
                None if answered.is_some() => Reason::BeforePersistence,
                None => Reason::NeverDelivered,
            };
            Ok((lost, ran))
        }
        "in_doubt" => {
            let last = sent.last().ok_or("nothing was sent")?;
            let is_away =
                last.life.ended.is_some_and(|ended| ended < at) || last.life.froze(last.one.at, at) >= PATIENCE;
            if is_away { Ok((Reason::InDoubt, Duration::ZERO)) } else { Err("its sender was there") }
        }
        _ => Err("no rule explains that"),
    }
}

impl<'a> Sent<'a> {
    fn of(one: &'a Presentation, lives: &[Vec<Life>]) -> Self {
        let (replica, life) = one.query.as_deref().and_then(sender).expect("each process names itself in its requests");
        Self { one, life: lives[replica][life].clone(), replica }
    }

    fn tell(&self) -> String {
        let Presentation { token, at, processed_at, answered_at, outcome, duplicate, given, .. } = self.one;
        let since = |time: SystemTime| time.duration_since(*at).unwrap_or_default();
        let token = token.as_ref().map(|token| format!("{} token {}", token.user, token.serial)).unwrap_or_default();
        let given = given.as_ref().map(|given| given.serial);
        let Life { stopped, ended, frozen, .. } = &self.life;
        format!(
            "{token} by replica {} at {at:?} (processed {:?}, answered {:?} later): {outcome:?}, gave {given:?}, duplicate \
             {duplicate}; its process {stopped:?}, ended {ended:?}, frozen {frozen:?}",
            self.replica,
            processed_at.map(since),
            answered_at.map(since)
        )
    }
}

fn near(one: SystemTime, other: SystemTime) -> bool {
    let apart = one.duration_since(other).or(other.duration_since(one)).unwrap_or_default();
    apart < Duration::from_millis(5)
}

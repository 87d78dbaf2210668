//! Who lost what, and why. Fed with what the providers logged, what the dead process left on its disk and what
//! its callers were told; everything that no rule explains ends the test with the grant's story.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    time::SystemTime,
};

use token_supervisor::{
    RefreshToken,
    testing::{Kind, Outcome, Presentation, TokenId},
};

/// Why an answer is lost. There is no third reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    /// The provider never delivered it: the process that would have read it was dead.
    NeverDelivered,
    /// The process was killed between the answer and its first persistence.
    BeforePersistence,
}

/// What a dead process left of one grant.
#[derive(Clone, Debug, Default)]
pub(super) struct Left {
    /// The highest generation in store and journal; zero if nothing is stored.
    pub(super) generation: u64,
    /// The refresh tokens in store and journal.
    pub(super) tokens: Vec<TokenId>,
}

/// What the providers saw of one life of the process, and what was left of it.
pub(super) struct Evidence {
    pub(super) presentations: Vec<Presentation>,
    /// By grant.
    pub(super) left: Vec<Left>,
}

pub(super) struct Ledger {
    pub(super) accounts: Vec<Account>,
    grant_of: HashMap<String, usize>,
    life: usize,
    pub(super) sums: BTreeMap<&'static str, Sums>,
}

/// What is counted for each kind of provider.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) requests: usize,
    /// Spent tokens that were presented again because the answer to their first use was lost.
    pub(super) explained_duplicates: usize,
    /// Those of them that were processed and refused.
    pub(super) refused_duplicates: u64,
    /// Answers that store or journal got.
    pub(super) stored: u64,
    pub(super) lost: BTreeMap<Reason, usize>,
    /// Losses after which the grant goes on all the same.
    pub(super) healed: usize,
    /// Losses after which the user had to consent again.
    pub(super) reconnected: usize,
    pub(super) consents: usize,
    /// Requests of one grant in one life that got no answer, at most.
    pub(super) unanswered: usize,
}

pub(super) struct Account {
    pub(super) idp: &'static str,
    kind: Kind,
    /// Whose consent the grant stems from: each consent has a subject of its own.
    subject: Option<String>,
    /// A consent that may not have been stored yet, with the refresh token it gave.
    consenting: Option<(String, RefreshToken)>,
    consents: usize,
    /// In which life the last consent was handed in.
    consented_in: Option<usize>,
    generation: u64,
    /// Highest generation that a caller saw.
    pub(super) seen: u64,
    /// The provider gave an answer that nobody has.
    missing: Option<Missing>,
    /// In which life the grant's end was told to a caller.
    refused_in: Option<usize>,
    story: Vec<(usize, Presentation)>,
}

#[derive(Clone, Debug)]
struct Missing {
    reason: Reason,
    /// The token that was spent for it, and that is presented once more.
    holding: TokenId,
}

impl Ledger {
    pub(super) fn new(accounts: impl Iterator<Item = (&'static str, Kind)>) -> Self {
        let accounts = accounts.map(|(idp, kind)| Account {
            idp,
            kind,
            subject: None,
            consenting: None,
            consents: 0,
            consented_in: None,
            generation: 0,
            seen: 0,
            missing: None,
            refused_in: None,
            story: Vec::new(),
        });
        Self { accounts: accounts.collect(), grant_of: HashMap::new(), life: 1, sums: BTreeMap::new() }
    }

    /// A caller was given a token of this generation.
    pub(super) fn seen(&mut self, grant: usize, generation: u64) {
        self.accounts[grant].seen = self.accounts[grant].seen.max(generation);
    }

    /// A caller was told to send the user through consent. The refresh token to connect: of a consent under a
    /// subject of its own, or of the last one, if it was not stored before the process died.
    pub(super) fn refused(
        &mut self,
        grant: usize,
        reason: &str,
        consent: impl FnOnce(&str) -> RefreshToken,
    ) -> RefreshToken {
        let account = &self.accounts[grant];
        let text = format!("a user has to reconnect who has just consented: {reason}");
        self.holds(account.consented_in != Some(self.life), grant, &text);
        if let Some((_, token)) = account.consenting.clone() {
            self.accounts[grant].consented_in = Some(self.life);
            return token;
        }
        let first = account.subject.is_none() && account.generation == 0;
        if !first {
            let may_be_lost = account.missing.is_some() && matches!(account.kind, Kind::Strict | Kind::Reject);
            self.holds(may_be_lost, grant, &format!("a user has to reconnect for no known reason: {reason}"));
            self.sums(grant).reconnected += 1;
        }
        self.sums(grant).consents += 1;
        let account = &mut self.accounts[grant];
        account.consents += 1;
        (account.refused_in, account.consented_in) = (Some(self.life), Some(self.life));
        let subject = format!("{}-{grant}.{}", account.idp, account.consents);
        self.grant_of.insert(subject.clone(), grant);
        let token = consent(&subject);
        account.consenting = Some((subject, token.clone()));
        token
    }

    /// The end of a life, once all that was sent in it is settled.
    pub(super) fn judge(&mut self, evidence: Evidence) {
        let mut presented: Vec<Vec<Presentation>> = vec![Vec::new(); self.accounts.len()];
        for one in evidence.presentations {
            let token = one.token.as_ref().expect("only tokens that were issued are presented");
            presented[self.grant_of[&*token.user]].push(one);
        }
        for (grant, left) in evidence.left.into_iter().enumerate() {
            let presented = std::mem::take(&mut presented[grant]);
            self.accounts[grant].story.extend(presented.iter().map(|one| (self.life, one.clone())));
            self.judge_requests(grant, &presented);
            self.judge_generations(grant, &left);
            self.judge_tokens(grant, &left);
        }
        self.life += 1;
    }

    /// Nothing is sent twice but what a recovery explains, and nobody asks again and again.
    fn judge_requests(&mut self, grant: usize, presented: &[Presentation]) {
        let mut times: HashMap<&TokenId, usize> = HashMap::new();
        let kind = self.accounts[grant].kind;
        for one in presented {
            let token = one.token.as_ref().expect("looked at above");
            let times = times.entry(token).or_default();
            *times += 1;
            let once = *times == 1 || kind == Kind::NotRotating;
            self.holds(once, grant, &format!("token {} is sent twice in life {}", token.serial, self.life));
            let account = &self.accounts[grant];
            let ended = account.refused_in.is_some_and(|life| life < self.life)
                && account.subject.as_deref() == Some(&*token.user);
            self.holds(!ended, grant, "a grant is tried although its user was asked to reconnect");
            let recovered = account.missing.as_ref().is_some_and(|missing| missing.holding == *token);
            let refused = matches!(one.outcome, Outcome::Refused | Outcome::KilledFamily);
            if one.duplicate || refused {
                self.holds(recovered, grant, &format!("token {} is spent twice for no known reason", token.serial));
                self.sums(grant).explained_duplicates += 1;
                self.sums(grant).refused_duplicates += u64::from(refused);
            }
            self.holds(
                !(refused && kind.grace().is_some()),
                grant,
                &format!("token {} is refused within its grace", token.serial),
            );
        }
        let unanswered = presented.iter().filter(|one| one.answered_at.is_none()).count();
        self.holds(unanswered <= 1, grant, "a second request is sent while the first has no answer");
        let sums = self.sums(grant);
        sums.requests += presented.len();
        sums.unanswered = sums.unanswered.max(unanswered);
    }

    /// What a caller saw is on the disk, and nothing goes back.
    fn judge_generations(&mut self, grant: usize, left: &Left) {
        let (seen, before) = (self.accounts[grant].seen, self.accounts[grant].generation);
        let text = format!("generation {seen} was seen by a caller, and the disk has {}", left.generation);
        self.holds(seen <= left.generation, grant, &text);
        let text = format!("the generation falls from {before} to {}", left.generation);
        self.holds(before <= left.generation, grant, &text);
        self.accounts[grant].generation = left.generation;
        self.sums(grant).stored += left.generation - before;
    }

    /// What the provider gave is on the disk, or its loss has a name.
    fn judge_tokens(&mut self, grant: usize, left: &Left) {
        let account = &mut self.accounts[grant];
        let holds = |subject: &str| left.tokens.iter().find(|token| &*token.user == subject);
        if account.consenting.as_ref().is_some_and(|(subject, _)| holds(subject).is_some()) {
            (account.subject, account.missing) = (account.consenting.take().map(|(subject, _)| subject), None);
            account.refused_in = None;
            // A connect is a generation too, and no answer.
            self.sums(grant).stored -= 1;
        }
        let account = &self.accounts[grant];
        let Some(subject) = account.subject.as_deref().filter(|_| account.kind != Kind::NotRotating) else { return };
        let of_subject = |(_, one): &&(usize, Presentation)| one.token.as_ref().is_some_and(|it| &*it.user == subject);
        let answers = account.story.iter().filter(of_subject).map(|(_, one)| one).filter(|one| one.given.is_some());
        // What was processed last is what counts.
        let newest = answers.max_by_key(|one| (one.given.as_ref().map(|token| token.serial), one.processed_at));
        let held = left.tokens.iter().filter(|token| &*token.user == subject).max_by_key(|token| token.serial).cloned();
        let Some(held) = held else { self.fail(grant, "nothing is left of the grant on the disk") };
        let lost = newest.filter(|one| one.given.as_ref().is_some_and(|given| given.serial > held.serial)).cloned();
        let before = account.missing.clone();
        let still = before.as_ref().is_some_and(|missing| missing.holding == held);
        if before.is_some() && (lost.is_none() || !still) {
            self.sums(grant).healed += 1;
            self.accounts[grant].missing = None;
        }
        let Some(lost) = lost.filter(|_| before.is_none() || !still) else { return };
        self.holds(lost.token.as_ref() == Some(&held), grant, "more than one answer in a row is lost");
        let reason = if lost.answered_at.is_some() { Reason::BeforePersistence } else { Reason::NeverDelivered };
        *self.sums(grant).lost.entry(reason).or_default() += 1;
        self.accounts[grant].missing = Some(Missing { reason, holding: held });
    }

    /// At the end nothing is open.
    pub(super) fn close(&self) {
        for (grant, account) in self.accounts.iter().enumerate() {
            self.holds(account.missing.is_none(), grant, "a lost answer was neither healed nor named to the user");
            self.holds(account.consenting.is_none(), grant, "a consent was not stored");
        }
    }

    /// Whether a caller saw a token that was refreshed in this life.
    pub(super) fn is_ahead(&self, grant: usize) -> bool {
        self.accounts[grant].seen > self.accounts[grant].generation
    }

    fn sums(&mut self, grant: usize) -> &mut Sums {
        self.sums.entry(self.accounts[grant].idp).or_default()
    }

    fn holds(&self, holds: bool, grant: usize, what: &str) {
        if !holds {
            self.fail(grant, what);
        }
    }

    pub(super) fn fail(&self, grant: usize, what: &str) -> ! {
        let account = &self.accounts[grant];
        let (idp, subject, generation, seen) = (account.idp, &account.subject, account.generation, account.seen);
        let mut story = format!("{what}\ngrant {grant} at {idp}, life {}\n", self.life);
        let began = account.story.first().map(|(_, one)| one.at);
        let since = |time: SystemTime| began.and_then(|began| time.duration_since(began).ok()).unwrap_or_default();
        for (life, one) in &account.story {
            let token = one.token.as_ref().map(|token| format!("{} token {}", token.user, token.serial));
            let given = one.given.as_ref().map(|token| token.serial);
            let (outcome, duplicate, answered) = (one.outcome, one.duplicate, one.answered_at.is_some());
            let times = format!("at {:.3?}, processed at {:.3?}", since(one.at), one.processed_at.map(since));
            let told = format!("{outcome:?}, gave {given:?}, answered: {answered}, duplicate: {duplicate}");
            writeln!(story, "  life {life}: {}: {told}, {times}", token.unwrap_or_default()).unwrap();
        }
        let missing = account.missing.as_ref().map(|missing| (missing.reason, missing.holding.serial));
        // What is judged first of a life are its requests: until then the disk is that of the life before.
        panic!(
            "{story}  of {subject:?}, judged last with generation {generation} on the disk, {seen} seen since, \
             missing: {missing:?}"
        );
    }
}

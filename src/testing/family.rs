//! Token families and the rules of each [`Kind`]: what a presented refresh token does.
//!
//! The module has no I/O: every call takes `now`. A family has the tokens of one consent; its refresh
//! tokens are numbered in the order of issue. At most one chain of them is valid, each issued for the one before.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    Fault, Kind, Outcome, Presentation, Profile, TokenId,
    presentation::{LogIndex, PresentationLog},
    refusal::Refusal,
};
use crate::model::{AccessToken, RefreshToken, WallTime};

#[cfg(test)]
mod tests;

/// The state of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The token is the newest of its family and can be spent.
    Current,
    /// The token is spent, but still accepted: within its grace period, or until the token that replaced it is used.
    WithinGrace,
    /// The token is spent.
    Spent,
    /// A later response to an earlier token of the family replaced the token.
    Superseded,
    /// The token was never issued here.
    Unknown,
    /// The token's family was ended, by reuse or by an administrator.
    FamilyDead,
    /// The client revoked the token's family.
    Revoked,
}

/// The tokens of a response. A response that is repeated within a grace period is the same, including the lifetime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IssuedTokens {
    pub(super) access: AccessToken,
    pub(super) refresh: Option<RefreshToken>,
    pub(super) issued: WallTime,
}

/// A request that has arrived: its place in the log, and the place of its token if the token is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    entry: LogIndex,
    place: Option<TokenPlace>,
}

impl Ticket {
    /// Returns how many tokens were presented before.
    pub(super) fn number(self) -> usize {
        self.entry.0
    }
}

#[derive(Clone, Copy, Debug)]
struct TokenPlace {
    family: usize,
    serial: usize,
}

/// Every family, every token, and the log.
pub(super) struct FamilyLedger {
    kind: Kind,
    access_lifetime: Duration,
    ends_old_access: bool,
    seed: u64,
    issued: u64,
    families: Vec<Family>,
    refresh: HashMap<String, TokenPlace>,
    access: HashMap<String, Access>,
    log: PresentationLog,
}

struct Family {
    user: Arc<str>,
    tokens: Vec<IssuedRefresh>,
    /// The access tokens that the next refresh ends; empty if old ones stay valid.
    ended_by_refresh: Vec<String>,
    end: Option<(WallTime, Refusal)>,
}

struct IssuedRefresh {
    token: RefreshToken,
    /// When the token was first used.
    spent: Option<WallTime>,
    superseded: bool,
    answer: Option<IssuedTokens>,
}

struct Access {
    family: usize,
    end: WallTime,
}

impl FamilyLedger {
    pub(super) fn new(profile: &Profile, seed: u64) -> Self {
        Self {
            kind: profile.kind,
            access_lifetime: profile.access_lifetime,
            ends_old_access: profile.ends_old_access,
            seed,
            issued: 0,
            families: Vec::new(),
            refresh: HashMap::new(),
            access: HashMap::new(),
            log: PresentationLog::default(),
        }
    }

    pub(super) fn set_kind(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// Starts a family.
    pub(super) fn consent(&mut self, user: &str, now: WallTime) -> IssuedTokens {
        let family = self.families.len();
        self.families.push(Family { user: user.into(), tokens: Vec::new(), ended_by_refresh: Vec::new(), end: None });
        let refresh = Some(self.new_refresh(family));
        IssuedTokens { access: self.new_access(family, now), refresh, issued: now }
    }

    /// Logs a refresh token that has arrived and is not processed yet.
    pub(super) fn arrived(&mut self, token: &str, fault: Option<&Fault>, now: WallTime) -> Ticket {
        let place = self.refresh.get(token).copied();
        let duplicate = place.is_some_and(|place| self.token(place).spent.is_some());
        Ticket { entry: self.log.arrived(self.id(token), duplicate, fault, now), place }
    }

    /// Logs the query of the request's URL.
    pub(super) fn came_with(&mut self, ticket: Ticket, query: &str) {
        self.log.came_with(ticket.entry, query);
    }

    /// Logs that the whole response was handed to the connection.
    pub(super) fn answered(&mut self, ticket: Ticket, now: WallTime) {
        self.log.answered(ticket.entry, now);
    }

    /// Processes a token that has arrived. With `keep`, a valid token is accepted without being spent.
    pub(super) fn process(&mut self, ticket: Ticket, keep: bool, now: WallTime) -> Result<IssuedTokens, Refusal> {
        let duplicate = ticket.place.is_some_and(|place| self.token(place).spent.is_some());
        let (outcome, answer) = match ticket.place {
            Some(place) => self.spend(place, keep, now),
            None => (Outcome::Refused, Err(Refusal::Unknown)),
        };
        let given = answer.as_ref().ok().and_then(|answer| self.id(answer.refresh.as_ref()?.expose_secret()));
        self.log.processed(ticket.entry, outcome, duplicate, given, now);
        answer
    }

    fn spend(&mut self, place: TokenPlace, keep: bool, now: WallTime) -> (Outcome, Result<IssuedTokens, Refusal>) {
        if let Some((_, why)) = self.families[place.family].end {
            return (Outcome::Refused, Err(why));
        }
        let token = self.token(place);
        if token.superseded {
            return (Outcome::Refused, Err(Refusal::Superseded));
        }
        let Some(first_use) = token.spent else {
            if keep || self.kind == Kind::NotRotating {
                let access = self.new_access(place.family, now);
                return (Outcome::Renewed, Ok(IssuedTokens { access, refresh: None, issued: now }));
            }
            return (Outcome::Rotated, Ok(self.rotate(place, now)));
        };
        let in_grace = self.kind.grace().is_some_and(|grace| now < first_use + grace);
        match (self.kind, &token.answer) {
            (Kind::SamePair { .. }, Some(answer)) if in_grace => (Outcome::Replayed, Ok(answer.clone())),
            (Kind::LastWins { .. } | Kind::RetrySafe, _) if in_grace || self.is_open(place) => {
                // Every later token of the family descends from this one.
                for later in self.families[place.family].tokens.iter_mut().skip(place.serial + 1) {
                    later.superseded = true;
                }
                (Outcome::Replayed, Ok(self.rotate(place, now)))
            }
            // A token that was spent before the provider stopped rotating stays spent.
            (Kind::Reject | Kind::NotRotating, _) => (Outcome::Refused, Err(Refusal::Reused)),
            (Kind::Strict | Kind::SamePair { .. } | Kind::LastWins { .. } | Kind::RetrySafe, _) => {
                self.families[place.family].end = Some((now, Refusal::FamilyDead));
                (Outcome::KilledFamily, Err(Refusal::Reused))
            }
        }
    }

    /// Returns whether the token is accepted until the one that replaced it is used.
    fn is_open(&self, place: TokenPlace) -> bool {
        let successor = self.token(place).answer.as_ref().and_then(|answer| answer.refresh.as_ref());
        let successor = successor.and_then(|token| self.refresh.get(token.expose_secret()));
        self.kind == Kind::RetrySafe && successor.is_some_and(|successor| self.token(*successor).spent.is_none())
    }

    fn rotate(&mut self, place: TokenPlace, now: WallTime) -> IssuedTokens {
        let refresh = Some(self.new_refresh(place.family));
        let answer = IssuedTokens { access: self.new_access(place.family, now), refresh, issued: now };
        let token = &mut self.families[place.family].tokens[place.serial];
        token.spent = token.spent.or(Some(now));
        token.answer = Some(answer.clone());
        answer
    }

    /// Returns the token's ID, if the token was issued here.
    pub(super) fn id(&self, token: &str) -> Option<TokenId> {
        let TokenPlace { family, serial } = *self.refresh.get(token)?;
        let user = Arc::clone(&self.families[family].user);
        Some(TokenId { user, family: family as u64 + 1, serial: serial as u64 + 1 })
    }

    pub(super) fn standing(&self, token: &str, now: WallTime) -> Standing {
        let Some(place) = self.refresh.get(token).copied() else { return Standing::Unknown };
        let token = self.token(place);
        match (self.families[place.family].end, token.spent) {
            (Some((_, Refusal::Revoked)), _) => Standing::Revoked,
            (Some(_), _) => Standing::FamilyDead,
            _ if token.superseded => Standing::Superseded,
            (None, None) => Standing::Current,
            (None, Some(first_use)) => match self.kind.grace() {
                Some(grace) if now < first_use + grace => Standing::WithinGrace,
                None if self.is_open(place) => Standing::WithinGrace,
                _ => Standing::Spent,
            },
        }
    }

    /// Returns the newest refresh token of the user's newest family, valid or not.
    pub(super) fn newest(&self, user: &str) -> Option<RefreshToken> {
        let family = self.families.iter().rfind(|family| &*family.user == user)?;
        family.tokens.last().map(|newest| newest.token.clone())
    }

    /// Returns when the access token became invalid; `None` if it is valid.
    pub(super) fn access_died_at(&self, token: &str, now: WallTime) -> Option<WallTime> {
        let Some(access) = self.access.get(token) else { return Some(WallTime(0)) };
        let family_end = self.families[access.family].end.map(|(at, _)| at);
        Some(family_end.map_or(access.end, |end| end.min(access.end))).filter(|end| *end <= now)
    }

    /// Returns the user of the access token, if the token is valid.
    pub(super) fn user_of(&self, access: &str, now: WallTime) -> Option<Arc<str>> {
        let alive = self.access_died_at(access, now).is_none();
        self.access.get(access).filter(|_| alive).map(|access| Arc::clone(&self.families[access.family].user))
    }

    /// Ends every family of the user, as an administrator does.
    pub(super) fn end_family(&mut self, user: &str, now: WallTime) {
        for family in self.families.iter_mut().filter(|family| &*family.user == user) {
            family.end.get_or_insert((now, Refusal::Ended));
        }
    }

    /// Revokes the family of a refresh or access token; returns whether there was one.
    pub(super) fn revoke(&mut self, token: &str, now: WallTime) -> bool {
        let by_refresh = self.refresh.get(token).map(|place| place.family);
        let family = by_refresh.or_else(|| self.access.get(token).map(|access| access.family));
        if let Some(family) = family {
            self.families[family].end.get_or_insert((now, Refusal::Revoked));
        }
        family.is_some()
    }

    pub(super) fn presentations(&self) -> &[Presentation] {
        self.log.entries()
    }

    pub(super) fn duplicate_spends(&self) -> u64 {
        self.log.duplicate_spends()
    }

    fn token(&self, place: TokenPlace) -> &IssuedRefresh {
        &self.families[place.family].tokens[place.serial]
    }

    fn new_refresh(&mut self, family: usize) -> RefreshToken {
        let token = self.new_secret("rt");
        let tokens = &mut self.families[family].tokens;
        self.refresh.insert(token.clone(), TokenPlace { family, serial: tokens.len() });
        let token = RefreshToken::from(token);
        tokens.push(IssuedRefresh { token: token.clone(), spent: None, superseded: false, answer: None });
        token
    }

    fn new_access(&mut self, family: usize, now: WallTime) -> AccessToken {
        let token = self.new_secret("at");
        if self.ends_old_access {
            for old in std::mem::replace(&mut self.families[family].ended_by_refresh, vec![token.clone()]) {
                if let Some(old) = self.access.get_mut(&old) {
                    old.end = old.end.min(now);
                }
            }
        }
        self.access.insert(token.clone(), Access { family, end: now + self.access_lifetime });
        token.into()
    }

    /// Returns a secret: its number makes it unique, the rest cannot be guessed from another secret.
    fn new_secret(&mut self, sort: &str) -> String {
        self.issued += 1;
        let mut state = self.seed.wrapping_add(self.issued.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (high, low) = (super::fault::splitmix64(&mut state), super::fault::splitmix64(&mut state));
        format!("ts-test-secret-{sort}-{}-{high:016x}{low:016x}", self.issued)
    }
}

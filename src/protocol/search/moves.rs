//! The moves that are possible in a state.
//!
//! A pause of a process needs no move: its moves are not chosen for a while. An outage of the store is one fault for
//! each operation that meets it. What a move does is in `effects` and, for attempts, in `attempts`.

use std::rc::Rc;

use super::{
    idp::{ModelResponse, Request, TokenIndex},
    world::{ATTEMPT, ModelAttempt, ModelWorld, Setting},
};
use crate::{
    model::{Id, Lease, Row, VerdictBy},
    protocol::attempt::AttemptEffect,
};

/// One move. Processes, requests and so on are identified by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// A process starts an attempt, and reads the row unless its journal comes first.
    Start(u8),
    /// A process starts an attempt with the row that it knows, which is out of date.
    StartKnowing(u8),
    /// The attempt of a process carries out its machine's effect.
    Do(u8, How),
    /// A process reads the store's reply to its claim.
    Look(u8),
    /// The store is still silent about the commit.
    Silent(u8),
    Renew(u8),
    /// The provider processes a request.
    Process(u8),
    /// The response arrives.
    Respond(u8),
    /// The response arrives, with the tokens of another subject.
    Foreign(u8),
    /// The response arrives, with a new refresh token alone.
    WithoutAccessToken(u8),
    /// The sender gets a timeout, a broken connection or a 5xx; the request may be processed nevertheless.
    Unknown(u8),
    /// The provider rejects the request without processing it.
    Decline(u8),
    /// A delayed statement is executed.
    Execute(u8),
    /// An entry (journal, index) is stored; it is marked unless the acknowledgement is lost.
    Flush(u8, u8, How),
    Kill(u8),
    Restart(u8),
    /// Restart with a new disk.
    Replace(u8),
    Connect,
    /// A connect with a token that is not new.
    ConnectAgain(TokenIndex),
    ConnectWithout,
    Disconnect,
    Restore,
    RequireReconnect,
    /// A token that the provider refused is sent once more.
    Retry,
    Hold,
    /// Costs no budget: a hold always ends.
    Release,
    /// A queued revocation is sent, then reaches the provider.
    Revoke(u8),
    Tick,
}

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Well,
    /// Done; its process is held up before it reads the reply.
    Slowly,
    /// Done, but the reply is lost.
    Unheard,
    /// Not done, without a reply.
    Not,
    /// Perhaps done later, without a reply.
    Late,
}

use How::{Late, Not, Slowly, Unheard, Well};

impl ModelWorld {
    /// Returns the moves that are possible now.
    pub(super) fn moves(&self, setting: &Setting) -> Vec<Move> {
        let mut moves = Vec::with_capacity(24);
        let faulty = self.left.faults > 0;
        for (place, process) in (0..).zip(&self.processes) {
            match &process.attempt {
                _ if !process.alive => {
                    moves.push(Move::Restart(place));
                    if self.left.disks > 0 && !setting.shared_disk {
                        moves.push(Move::Replace(place));
                    }
                    continue;
                }
                Some(attempt) => self.moves_of(place, attempt, setting, &mut moves),
                None if self.left.claims > 0 => {
                    moves.push(Move::Start(place));
                    let is_usable = |known: &&Rc<Row>| known.intent.is_none() && known.lease.is_none();
                    let known = process.known.as_ref().filter(is_usable).filter(|known| ***known != *self.row);
                    moves.extend(known.filter(|_| self.pending(place).is_empty()).map(|_| Move::StartKnowing(place)));
                }
                None => {}
            }
            for (journal, entry) in self.pending(place) {
                moves.push(Move::Flush(journal, entry, Well));
                if faulty {
                    moves.push(Move::Flush(journal, entry, Unheard));
                }
            }
            if self.left.kills > 0 {
                moves.push(Move::Kill(place));
            }
        }
        for (place, request) in (0..).zip(&self.idp.requests) {
            let heard = self.listens(request);
            match request.response {
                Some(response) if heard => {
                    moves.push(Move::Respond(place));
                    if faulty && response != ModelResponse::InvalidGrant {
                        moves.extend([Move::Foreign(place), Move::WithoutAccessToken(place)]);
                    }
                }
                Some(_) => {}
                None => {
                    if self.processable(request, setting) {
                        moves.push(Move::Process(place));
                    }
                    if heard && faulty {
                        moves.push(Move::Decline(place));
                    }
                }
            }
            if heard && (faulty || self.now >= request.written + setting.rules.patience) {
                moves.push(Move::Unknown(place));
            }
        }
        moves.extend((0..).zip(&self.delayed).map(|(place, _)| Move::Execute(place)));
        moves.extend((0..).zip(&self.revocations).map(|(place, _)| Move::Revoke(place)));
        if self.left.orders > 0 {
            moves.extend([Move::Connect, Move::ConnectWithout, Move::ConnectAgain(0)]);
            moves.extend(self.current().filter(|current| *current != 0).map(Move::ConnectAgain));
            moves.extend([Move::Disconnect, Move::RequireReconnect]);
            moves.extend(self.row.tombstone.map(|_| Move::Restore));
            let refused = self.row.verdict.as_ref().is_some_and(|verdict| verdict.by == VerdictBy::Idp);
            moves.extend((refused && self.row.tombstone.is_none()).then_some(Move::Retry));
            moves.extend(self.row.held.is_none().then_some(Move::Hold));
        }
        moves.extend(self.row.held.is_some().then_some(Move::Release));
        if self.time_may_pass() {
            moves.push(Move::Tick);
        }
        moves
    }

    fn moves_of(&self, place: u8, attempt: &ModelAttempt, setting: &Setting, moves: &mut Vec<Move>) {
        if attempt.held.is_some() {
            return moves.push(Move::Look(place));
        }
        if attempt.sent && attempt.commit.is_none() {
            let renewed = self.now + setting.rules.lease;
            let renewable = |lease: &Lease| lease.attempt == Id::of(ATTEMPT, attempt.id);
            if self.row.lease.as_ref().filter(|lease| renewable(lease)).is_some_and(|lease| lease.until != renewed) {
                moves.push(Move::Renew(place));
            }
            return;
        }
        let failures: &[How] = match attempt.effect {
            AttemptEffect::Flush if !self.pending(place).is_empty() => return,
            AttemptEffect::Claim(_) if attempt.claimed && self.left.claims == 0 => return,
            AttemptEffect::Claim(_) | AttemptEffect::RepeatClaim => &[Slowly, Unheard, Not, Late],
            AttemptEffect::Commit => &[Unheard, Not, Late],
            AttemptEffect::Journal => &[Unheard, Not],
            AttemptEffect::Change(_) => &[Unheard, Late],
            AttemptEffect::Send(_) | AttemptEffect::Probe => &[Not],
            AttemptEffect::AwaitStore => &[Unheard],
            _ => &[],
        };
        moves.push(Move::Do(place, Well));
        if self.left.faults > 0 {
            moves.extend(failures.iter().map(|how| Move::Do(place, *how)));
        }
        if matches!(attempt.effect, AttemptEffect::AwaitStore) && !attempt.journaled {
            moves.push(Move::Silent(place));
        }
    }

    /// Returns whether time may pass: not while a process is between its last reading of the clock and sending, where a
    /// delay is more than any client can survive.
    pub(super) fn time_may_pass(&self) -> bool {
        let attempts = self.processes.iter().filter_map(|process| process.attempt.as_ref());
        !attempts.into_iter().any(|attempt| matches!(attempt.effect, AttemptEffect::Send(_)) && !attempt.sent)
    }

    /// Returns whether the provider may still process the request: not later than `settle` after its sender ended. A
    /// sender that is held up ends when it would have stopped waiting.
    pub(super) fn processable(&self, request: &Request, setting: &Setting) -> bool {
        let patience_ends = request.written + setting.rules.patience;
        let ended = request.orphaned.map_or(patience_ends, |orphaned| orphaned.min(patience_ends));
        request.response.is_none() && self.now < ended + setting.rules.settle
    }
}

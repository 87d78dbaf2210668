//! The seventh invariant: once faults stop, every doubt ends, and every token that was delivered can be used.
//!
//! From a state, the model goes on by a fair schedule without faults: dead processes restart (or, in a second run,
//! never do), every request is processed and gets its response, every attempt goes on. Then the grant must be at rest,
//! and a last refresh must end in the token that is owed.

use super::{
    idp::{ReusePolicy, TokenIndex, token},
    invariants,
    moves::{How, Move},
    world::{ModelWorld, Setting},
};
use crate::model::VerdictBy;

/// More ticks than any wait.
const PATIENCE: u32 = 60;
/// More ticks than a lease.
const WAITS: u32 = 8;
/// More moves than the steps of an attempt.
const STEPS: u32 = 200;

/// Checks that the model comes to rest from this state.
///
/// # Errors
/// Returns what does not, with the moves that led there.
pub(super) fn comes_to_rest(world: &ModelWorld, restart: bool, setting: &Setting) -> Result<(), (String, Vec<Move>)> {
    let mut rest = Rest { world: world.clone(), setting, story: Vec::new(), restart };
    rest.world.left.claims = 100;
    rest.release().and_then(|()| rest.settle()).and_then(|()| rest.refresh()).map_err(|broken| (broken, rest.story))
}

struct Rest<'a> {
    world: ModelWorld,
    setting: &'a Setting,
    story: Vec<Move>,
    restart: bool,
}

impl Rest<'_> {
    fn make(&mut self, chosen: Move) -> Result<(), String> {
        self.story.push(chosen);
        self.world.carry_out(chosen, self.setting)?;
        invariants::broken(&self.world, self.setting).map_or(Ok(()), Err)
    }

    /// Releases the grant: nothing ends while it is on hold, and a hold always ends.
    fn release(&mut self) -> Result<(), String> {
        if self.world.row.held.is_some() { self.make(Move::Release) } else { Ok(()) }
    }

    /// Goes on until nothing is running and no doubt is left.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..PATIENCE {
            self.run()?;
            // Every process looks once at each time; a doubt that can end then does.
            for process in 0..self.world.processes.len() as u8 {
                if self.world.processes[usize::from(process)].alive && self.unsettled() {
                    self.make(Move::Start(process))?;
                    self.run()?;
                }
            }
            let waits = self.unsettled() || !self.world.idp.requests.is_empty();
            if !waits {
                return self.is_at_rest();
            }
            self.make(Move::Tick)?;
        }
        Err(format!("7: the doubt does not end: {:?}", self.world.row.intent))
    }

    fn unsettled(&self) -> bool {
        let row = &self.world.row;
        row.intent.is_some() && (row.verdict.is_none() || row.tombstone.is_some())
    }

    /// Makes every fair move that is possible without time passing.
    fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            match self.next() {
                Some(chosen) => self.make(chosen)?,
                None => return Ok(()),
            }
        }
        Err("7: the moves do not end without time passing".to_owned())
    }

    fn next(&self) -> Option<Move> {
        let moves = self.world.moves(self.setting);
        let fair = |chosen: &&Move| match chosen {
            Move::Restart(_) => self.restart || !self.world.processes.iter().any(|process| process.alive),
            Move::Do(_, how) | Move::Flush(_, _, how) => *how == How::Well,
            Move::Look(_) | Move::Process(_) | Move::Respond(_) | Move::Execute(_) | Move::Revoke(_) => true,
            Move::Unknown(request) => {
                let request = &self.world.idp.requests[usize::from(*request)];
                request.response.is_none() && !self.world.processable(request, self.setting)
            }
            _ => false,
        };
        moves.iter().find(fair).copied()
    }

    fn is_at_rest(&self) -> Result<(), String> {
        let world = &self.world;
        if let Some(process) = world.processes.iter().position(|process| process.attempt.is_some()) {
            return Err(format!("7: the attempt of process {process} is stuck"));
        }
        let left_over = world.journals.iter().any(|journal| journal.holder.is_some() && !journal.entries.is_empty());
        if left_over {
            return Err("7: a response stays in the journal".to_owned());
        }
        let given_up = |by: VerdictBy| matches!(by, VerdictBy::Idp | VerdictBy::Doubt);
        let single = self.setting.kind == ReusePolicy::RetrySafe && self.setting.replicas == 1;
        if single && world.row.verdict.as_ref().is_some_and(|verdict| given_up(verdict.by)) {
            return Err("7: a reconnect is required where every doubt can be resolved".to_owned());
        }
        let journals = world.journals.iter().filter(|journal| journal.holder.is_none());
        let out_of_reach =
            journals.flat_map(|journal| &journal.entries).any(|entry| entry.incarnation == world.row.incarnation);
        if world.row.tombstone.is_some() && !out_of_reach {
            let live = |&at: &TokenIndex| world.idp.live(at) && world.idp.tokens[usize::from(at)].delivered;
            let ours = |&at: &TokenIndex| world.idp.tokens[usize::from(at)].family == world.family();
            let excused = |&at: &TokenIndex| world.idp.tokens[usize::from(at)].excused;
            let left = (0..world.idp.tokens.len() as TokenIndex).find(|at| live(at) && ours(at) && !excused(at));
            return left.map_or(Ok(()), |left| Err(format!("7: token {left} of a disconnected grant is not revoked")));
        }
        Ok(())
    }

    /// Makes one more refresh: it must end in the token that is owed, if one is.
    fn refresh(&mut self) -> Result<(), String> {
        let owed = (0..self.world.idp.tokens.len() as TokenIndex).find(|&at| invariants::is_owed(&self.world, at));
        // A token in the journal of a process that never restarts is lost.
        let reachable = |at: &TokenIndex| {
            let row = &self.world.row;
            let fingerprints = row.refresh_token.iter().chain(row.alt.iter().map(|alt| &alt.token));
            fingerprints.into_iter().any(|held| token(held.fingerprint) == *at)
        };
        let Some(owed) = owed.filter(reachable) else { return Ok(()) };
        if !self.world.row.sendable() {
            let refused = self.world.row.verdict.as_ref().is_some_and(|verdict| verdict.by == VerdictBy::Idp);
            return if refused {
                Err(format!("7: token {owed} is live and available, but a reconnect is required"))
            } else {
                Ok(())
            };
        }
        let process = self.world.processes.iter().position(|process| process.alive).unwrap_or(0) as u8;
        // A lease may have to expire first, or the alternative token to be promoted.
        for _ in 0..WAITS {
            if !self.world.row.sendable() {
                break;
            }
            let before = self.world.row.generation;
            self.make(Move::Start(process))?;
            self.run()?;
            let works = self.world.current().is_some_and(|current| self.world.idp.live(current));
            let refreshed = self.world.row.generation > before;
            if works
                && refreshed
                && (self.setting.kind == ReusePolicy::NotRotating || self.world.current() != Some(owed))
            {
                return Ok(());
            }
            self.make(Move::Tick)?;
        }
        Err(format!("7: token {owed} was live and available, but the grant no longer works"))
    }
}

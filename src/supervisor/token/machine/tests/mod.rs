//! The machine of a key's actor: `serve` what there is, `fail` well, the `verbs`, what `rows` do to it, and `random` events.

mod fail;
mod random;
mod rows;
mod serve;
mod verbs;

use std::{sync::Arc, time::Duration};

use super::{Effect, Event, GateSight, LINGER, Machine, MachineLimits, Sight, Waiting};
use crate::{
    clock::Reading,
    error::{Cause, Error},
    idp::{GateClosed, Priority},
    model::{
        AccessToken, Attempted, BootTime, Expires, Exposed, Generation, Issued, LastError, Publication, Row, Token,
        TokenStanding, VerdictBy, WallTime, Warning,
    },
    protocol::{
        attempt::End,
        tests::{self as sample, NOW, WALL_NOW, claimed_row, id, seconds},
    },
};

const PATIENCE: Duration = Duration::from_secs(10);

/// The machine with what its actor would do: the clock, what is published, and what was wanted.
struct Bench {
    machine: Machine<u32, u32>,
    now: Reading,
    published: Option<Issued>,
    gate: GateSight,
    asked: u32,
    log: Vec<String>,
    answers: Vec<(u32, Result<Token, Error>)>,
    refreshed: Vec<(u32, Result<bool, Error>)>,
    started: usize,
    ended: usize,
    wake_at: Option<WallTime>,
}

impl Bench {
    fn new() -> Self {
        Self {
            machine: Machine::new(MachineLimits { waiters: 3 }),
            now: Reading { wall: WALL_NOW, boot: BootTime(0) },
            published: None,
            gate: GateSight::default(),
            asked: 0,
            log: Vec::new(),
            answers: Vec::new(),
            refreshed: Vec::new(),
            started: 0,
            ended: 0,
            wake_at: None,
        }
    }

    /// A machine that has read this row for somebody.
    fn with(row: Row) -> Self {
        let mut bench = Self::new();
        bench.machine.touch(bench.now);
        bench.feed(Event::Tick);
        bench.feed(Event::Row(Some(Arc::new(row))));
        bench
    }

    fn feed(&mut self, event: Event<u32, u32>) {
        self.log.clear();
        if self.machine.is_stopping() && !matches!(event, Event::Tick | Event::Progress) {
            // Its successor gets what comes.
            self.machine = Machine::new(MachineLimits { waiters: 3 });
        }
        self.ended += usize::from(matches!(event, Event::Ended(..)));
        if matches!(event, Event::Asked(_) | Event::RefreshNow(_) | Event::Rejected(_)) {
            self.machine.touch(self.now);
        }
        let mut effects = self.step(event);
        loop {
            let republished = effects.iter().any(|effect| matches!(effect, Effect::Publish(_) | Effect::Forget));
            for effect in effects {
                self.carry_out(effect);
            }
            if !republished {
                return;
            }
            effects = self.step(Event::Tick);
        }
    }

    fn step(&mut self, event: Event<u32, u32>) -> Vec<Effect<u32, u32>> {
        let published = self.published.clone();
        let sight = Sight { now: self.now, published: published.as_ref(), gate: self.gate, wanted: false };
        self.machine.step(event, sight)
    }

    fn carry_out(&mut self, effect: Effect<u32, u32>) {
        let name = match effect {
            Effect::Read => "read".to_owned(),
            Effect::Publish(row) => {
                if self.published.as_ref().is_none_or(|issued| issued.generation <= row.generation) {
                    self.published = Some(issued(&row));
                }
                return;
            }
            Effect::Forget => {
                self.published = None;
                "forget".to_owned()
            }
            Effect::Stand(generation, standing) => {
                let current = self.published.iter().filter(|issued| issued.generation <= generation);
                current.for_each(|issued| issued.set_standing(standing));
                return;
            }
            Effect::Start(_, lane) => {
                self.started += 1;
                assert_eq!(self.started, self.ended + 1, "one attempt at a time");
                if lane == Priority::Foreground { "start".to_owned() } else { "start ahead".to_owned() }
            }
            Effect::Hurry => "hurry".to_owned(),
            Effect::Answer(who, answer) => {
                assert!(self.answers.iter().all(|(other, _)| *other != who), "{who} is answered twice");
                self.answers.push((who, answer));
                return;
            }
            Effect::Refreshed(who, answer) => {
                assert!(self.refreshed.iter().all(|(other, _)| *other != who), "{who} is answered twice");
                self.refreshed.push((who, answer));
                return;
            }
            Effect::WakeAt(time) => {
                assert!(time > self.now.wall, "it would run in circles");
                self.wake_at = Some(time);
                return;
            }
            Effect::Stop(_) => "stop".to_owned(),
        };
        self.log.push(name);
    }

    fn pass(&mut self, elapsed: Duration) {
        self.now = self.now.plus(elapsed);
    }

    fn ask(&mut self, min_ttl: u64) -> Option<Result<Token, Error>> {
        self.asked += 1;
        let (who, deadline) = (self.asked, self.now.boot + PATIENCE);
        let min_ttl = seconds(min_ttl);
        self.feed(Event::Asked(Waiting { who, min_ttl, deadline }));
        self.answer(who)
    }

    fn answer(&self, who: u32) -> Option<Result<Token, Error>> {
        self.answers.iter().find(|(other, _)| *other == who).map(|(_, answer)| answer.clone())
    }

    fn served(&mut self) -> bool {
        matches!(self.ask(0), Some(Ok(_)))
    }

    fn ends(&mut self, end: End, row: Row) {
        self.feed(Event::Ended(end, Some(Arc::new(row))));
    }

    fn standing(&self) -> TokenStanding {
        self.published.as_ref().unwrap().standing()
    }
}

fn issued(row: &Row) -> Issued {
    let token = AccessToken::new(format!("ts-test-secret-{}", row.generation));
    let boot_end = row.expires.at().map(|end| BootTime(end.0 - WALL_NOW.0));
    Issued::new(Publication {
        key: &row.key,
        grant_id: &row.grant_id,
        access_token: token,
        token_type: "Bearer",
        scope: "",
        expires: row.expires,
        generation: row.generation,
        due_at: row.due_at,
        boot_end,
        journaled: false,
        exposed: &Exposed::default(),
        scheme: None,
    })
}

/// Just connected: valid for an hour from now, due in 3000 s.
fn row() -> Row {
    sample::row()
}

/// The row after a refresh at `at`.
fn renewed(row: &Row, at: WallTime) -> Row {
    Row {
        generation: row.generation.next(),
        commit: Some(Attempted { attempt: id(1), epoch: row.epoch }),
        issued_at: at,
        expires: Expires::At(at + seconds(3_600)),
        due_at: Some(at + seconds(3_000)),
        ..sample::row()
    }
}

fn expired() -> Row {
    Row { issued_at: WALL_NOW.minus(seconds(3_600)), expires: Expires::At(WALL_NOW), due_at: Some(WALL_NOW), ..row() }
}

fn failing(row: Row, retry_at: WallTime) -> Row {
    Row { retry_at: Some(retry_at), last_error: Some(sample::last_error(NOW)), ..row }
}

fn unavailable(answer: Option<Result<Token, Error>>) -> (Duration, Cause) {
    match answer {
        Some(Err(Error::Unavailable { retry_after, cause })) => (retry_after, cause),
        other => panic!("expected Unavailable, got {other:?}"),
    }
}

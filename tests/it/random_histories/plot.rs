//! What a history knows of its grant, and who still waits for an answer.

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::{Duration, SystemTime},
};

use token_supervisor::{Command, Error, Generation, Grant, Token, TokenKey};
use tokio::task::JoinHandle;

use super::stage::Stage;

/// What one history knows of its grant.
pub(super) struct Plot {
    pub(super) key: TokenKey,
    pub(super) other: TokenKey,
    pub(super) consents: Vec<Consent>,
    /// Whoever asked and was not answered yet.
    pub(super) asked: Vec<Asked>,
    pub(super) deeds: Vec<Deed>,
    /// The highest that was seen of a token.
    pub(super) generation: Generation,
    /// And of the row, which is behind while only the journal has the token.
    pub(super) stored: Generation,
    /// How many of the consents an administrator has ended.
    pub(super) ended: usize,
    /// The wall clock was stepped.
    pub(super) stepped: bool,
    pub(super) step_back: i64,
    pub(super) steps: usize,
}

pub(super) struct Consent {
    pub(super) grant: Grant,
    pub(super) family: u64,
}

/// A request on its way.
pub(super) struct Asked {
    pub(super) what: What,
    pub(super) at: Moment,
    pub(super) step: usize,
    /// Whether a good token lay ready when it was asked, and which generation had been seen.
    pub(super) cached: bool,
    pub(super) generation: Generation,
    pub(super) restarts: u32,
    pub(super) answer: JoinHandle<Result<Option<Token>, Error>>,
}

#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) elapsed: Duration,
    pub(super) wall: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    Token {
        min_ttl: Duration,
    },
    Refresh,
    Elsewhere,
    Report,
    Hold,
    /// The number of a deed.
    Deed(usize),
}

/// What people do to a grant.
#[derive(Debug)]
pub(super) struct Deed {
    pub(super) kind: DeedKind,
    pub(super) asked: usize,
    /// When it was answered with success, so that it had taken effect by then.
    pub(super) done: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum DeedKind {
    ConnectNew,
    ConnectOther,
    ConnectElsewhere,
    Disconnect { revoke: bool },
    RequireReconnect,
    Restore,
}

impl Plot {
    pub(super) fn new(key: TokenKey, consent: Consent) -> Self {
        Self {
            other: key.account("other"),
            key,
            consents: vec![consent],
            asked: Vec::new(),
            deeds: Vec::new(),
            generation: Generation::new(0),
            stored: Generation::new(0),
            ended: 0,
            stepped: false,
            step_back: 0,
            steps: 0,
        }
    }

    pub(super) async fn ask_for<C: Command>(&mut self, stage: &Stage, what: What, command: C) {
        let answer = stage.supervisor().call(command);
        self.ask(stage, what, async { answer.await.map(|_| None) }).await;
    }

    pub(super) async fn ask(
        &mut self,
        stage: &Stage,
        what: What,
        answer: impl Future<Output = Result<Option<Token>, Error>> + Send + 'static,
    ) {
        let (at, cached) = (stage.now(), stage.supervisor().cached(&self.key).is_some());
        // Its deadline counts from the first poll: that must not come after the clock has gone on.
        let mut answer = Box::pin(answer);
        let at_once = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
        let answer = tokio::spawn(async move {
            match at_once {
                Poll::Ready(answer) => answer,
                Poll::Pending => answer.await,
            }
        });
        let (step, generation, restarts) = (self.steps, self.generation, stage.restarts);
        self.asked.push(Asked { what, at, step, cached, generation, restarts, answer });
    }

    pub(super) async fn act<C: Command>(&mut self, stage: &Stage, kind: DeedKind, command: C) {
        self.deeds.push(Deed { kind, asked: self.steps, done: None });
        self.ask_for(stage, What::Deed(self.deeds.len() - 1), command).await;
    }

    /// Whoever waits may be answered now: by the wall clock that may be earlier than when they asked.
    pub(super) fn was_asked_by(&mut self, now: Moment) {
        self.asked.iter_mut().for_each(|asked| asked.at.wall = asked.at.wall.min(now.wall));
    }

    pub(super) fn done(&mut self, deed: usize) {
        self.deeds[deed].done = Some(self.steps);
    }
}

//! A running supervisor and its world, and how the steps of a story are carried out on them.

use std::time::Duration;

use token_supervisor::{
    Acquire, Command, Connect, Disconnect, Error, Generation, Grant, Hold, RefreshNow, RejectToken, Release,
    RequireReconnect, Restore, Retry, Revoke, TokenKey, TokenSupervisor,
    testing::{Fault, Kind, Outcome, Presentation, StoreFault},
};

use super::{
    plot::{Consent, DeedKind, Moment, Plot, What},
    setting::Setting,
    story::{Held, Step},
};
use crate::support::{LIFE, World};

/// An access token that the provider does not know: what a connect without refresh token brings.
pub(super) const ALONE: &str = "ts-test-secret-alone";

/// No fault has the provider process a request later than this.
const LATEST: Duration = Duration::from_secs(10);
/// Breaths, of some two milliseconds.
const LONG_ENOUGH: usize = 50;

pub(super) struct Stage {
    pub(super) setting: &'static Setting,
    pub(super) world: World,
    supervisor: Option<TokenSupervisor>,
    /// By the clock that nobody steps.
    pub(super) elapsed: Duration,
    pub(super) restarts: u32,
}

impl Stage {
    pub(super) async fn new(setting: &'static Setting) -> Self {
        let world = World::new((setting.profile)());
        let mut stage = Self { setting, world, supervisor: None, elapsed: Duration::ZERO, restarts: 0 };
        stage.start().await;
        stage
    }

    async fn start(&mut self) {
        let idp = (self.setting.configured)(self.world.sim.idp());
        let builder = self.world.bare_builder().refresh((self.setting.settings)());
        self.supervisor = Some(builder.idp("idp", idp).start().await.unwrap());
    }

    pub(super) fn supervisor(&self) -> &TokenSupervisor {
        self.supervisor.as_ref().unwrap()
    }

    pub(super) fn now(&self) -> Moment {
        Moment { elapsed: self.elapsed, wall: self.world.clock.now() }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.elapsed += by;
        self.world.clock.advance(by);
    }

    /// Lets time pass in two parts: what the provider does a little later is done before anybody has waited for long,
    /// however slow the machine is.
    async fn pass(&mut self, by: Duration) {
        let soon = by.min(LATEST);
        self.advance(soon);
        let late = |fault: &Fault| matches!(fault, Fault::LateProcessing(_) | Fault::Delay(_));
        if by > soon {
            self.until(|it| it.outcome != Outcome::NotProcessed || !it.fault.as_ref().is_some_and(late)).await;
            self.advance(by - soon);
        }
    }

    /// Waits a moment for all requests to be like this.
    async fn until(&self, holds: impl Fn(&Presentation) -> bool) {
        for _ in 0..LONG_ENOUGH {
            if self.world.sim.presentations().iter().all(&holds) {
                break;
            }
            breathe().await;
        }
        // What was answered is on its way to the attempt.
        breathe().await;
    }

    /// Sends a command, and lets time pass until it is answered.
    pub(super) async fn called<C: Command>(&mut self, command: C) -> Result<C::Answer, Error> {
        let task = tokio::spawn(self.supervisor().call(command));
        while !task.is_finished() {
            self.advance(Duration::from_millis(5));
            breathe().await;
        }
        task.await.unwrap()
    }

    fn consent(&self, user: &str) -> Consent {
        let grant = self.world.sim.consent(user);
        let newest = self.world.sim.newest(user).and_then(|token| self.world.sim.token_id(&token));
        Consent { grant, family: newest.unwrap().family }
    }

    pub(super) async fn begin(&mut self, seed: u64) -> Result<Plot, String> {
        let user = format!("user-{seed}");
        let key = TokenKey::at("idp").user(&user);
        let consent = self.consent(&user);
        self.world.sim.set_kind((self.setting.profile)().kind);
        let first = self.called(Connect::new(&key, consent.grant.clone()).timeout(LIFE)).await;
        first.map_err(|error| format!("the first connect was refused: {error}"))?;
        Ok(Plot::new(key, consent))
    }

    pub(super) async fn carry_out(&mut self, plot: &mut Plot, step: &Step) {
        plot.steps += 1;
        let back = std::mem::take(&mut plot.step_back);
        let (key, sim, supervisor) = (plot.key.clone(), self.world.sim.clone(), self.supervisor().clone());
        match step {
            Step::Ask { min_ttl } => {
                let answer = supervisor.call(Acquire::new(&key).min_ttl(*min_ttl));
                plot.ask(self, What::Token { min_ttl: *min_ttl }, async { answer.await.map(Some) }).await;
            }
            Step::AskAndVanish => tokio::spawn(supervisor.call(Acquire::new(&key))).abort(),
            Step::RefreshNow => plot.ask_for(self, What::Refresh, RefreshNow::new(&key)).await,
            Step::Reject { back, reporters } => {
                let generation = Generation::new(plot.generation.get().saturating_sub(*back));
                for _ in 0..*reporters {
                    plot.ask_for(self, What::Report, RejectToken::new(&key, generation)).await;
                }
            }
            Step::Advance(by) => self.pass(*by).await,
            Step::WallClock { seconds, stays } => {
                step_clock(&self.world, *seconds);
                plot.stepped = true;
                plot.step_back = if *stays { 0 } else { *seconds };
            }
            Step::Fault(fault) => sim.next(fault.clone()),
            Step::Release => {
                sim.release();
                self.until(|answered| answered.fault != Some(Fault::Hang) || answered.answered_at.is_some()).await;
            }
            Step::Store(fault) => supervisor.testing().store_fault(*fault),
            Step::Journal { fails } => supervisor.testing().journal_fails(*fails),
            Step::PanicActor => {
                // A dead registry is replaced after a moment by this clock: it must be able to pass.
                tokio::spawn(async move { supervisor.testing().panic_actor(&key).await });
            }
            Step::PanicRegistry => supervisor.testing().panic_registry(),
            Step::CrashSystem => supervisor.testing().crash_system(),
            Step::ConnectNew => {
                let consent = self.consent(key.user());
                plot.act(self, DeedKind::ConnectNew, Connect::new(&key, consent.grant.clone())).await;
                plot.consents.push(consent);
            }
            Step::ConnectAgain { which } => {
                let grant = plot.consents[which % plot.consents.len()].grant.clone();
                plot.act(self, DeedKind::ConnectOther, Connect::new(&key, grant)).await;
            }
            Step::ConnectElsewhere => {
                let grant = plot.consents[plot.consents.len() - 1].grant.clone();
                plot.act(self, DeedKind::ConnectElsewhere, Connect::new(&plot.other.clone(), grant)).await;
            }
            Step::RefreshElsewhere => plot.ask_for(self, What::Elsewhere, RefreshNow::new(&plot.other.clone())).await,
            Step::ConnectWithoutRefreshToken => {
                let grant = Grant::new(ALONE).expires_in(LIFE);
                plot.act(self, DeedKind::ConnectOther, Connect::new(&key, grant)).await;
            }
            Step::Disconnect { revoke } => {
                let command = Disconnect::new(&key, if *revoke { Revoke::Yes } else { Revoke::No });
                plot.act(self, DeedKind::Disconnect { revoke: *revoke }, command).await;
            }
            Step::Revocations { fail } => sim.fail_revocations(fail.then_some(503)),
            Step::RequireReconnect => {
                plot.act(self, DeedKind::RequireReconnect, RequireReconnect::new(&key, "asked")).await;
            }
            Step::Retry => plot.ask_for(self, What::Refresh, Retry::new(&key)).await,
            Step::Restore => plot.act(self, DeedKind::Restore, Restore::new(&key)).await,
            Step::Hold(Held::Grant) => plot.ask_for(self, What::Hold, Hold::new(&key, "by hand")).await,
            Step::LetGo(Held::Grant) => plot.ask_for(self, What::Hold, Release::new(&key)).await,
            Step::Hold(Held::Idp) | Step::LetGo(Held::Idp) => {
                let holds = matches!(step, Step::Hold(_));
                let set = async move {
                    let set =
                        if holds { supervisor.hold_idp("idp", "x").await } else { supervisor.release_idp("idp").await };
                    set.map(|()| None)
                };
                plot.ask(self, What::Hold, set).await;
            }
            Step::EndFamily => {
                plot.ended = plot.consents.len();
                sim.end_family(key.user());
            }
            Step::StartToRotate if self.setting.may_rotate() => sim.set_kind(Kind::Reject),
            Step::StartToRotate => {}
            Step::Restart => self.restart().await,
        }
        breathe().await;
        plot.was_asked_by(self.now());
        step_clock(&self.world, -back);
        plot.was_asked_by(self.now());
    }

    /// An orderly restart; what hangs is let go, and the store works again.
    async fn restart(&mut self) {
        self.heal();
        let Some(supervisor) = self.supervisor.take() else { return };
        self.restarts += 1;
        let stopping = tokio::spawn(async move { supervisor.shutdown(Duration::from_secs(10_000_000)).await });
        while !stopping.is_finished() {
            self.world.sim.release();
            self.advance(Duration::from_millis(200));
            breathe().await;
        }
        assert_eq!(stopping.await.unwrap().abandoned, 0);
        self.start().await;
    }

    /// Store and journal work again.
    pub(super) fn heal(&self) {
        self.supervisor().testing().store_fault(StoreFault::None);
        self.supervisor().testing().journal_fails(false);
    }
}

/// Lets the supervisor's threads do what they were told.
pub(super) async fn breathe() {
    let mut pause = tokio::time::interval(Duration::from_micros(300));
    pause.tick().await;
    pause.tick().await;
}

fn step_clock(world: &World, seconds: i64) {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds != 0 {
        world.clock.step_to(if seconds < 0 { world.clock.now() - by } else { world.clock.now() + by });
    }
}

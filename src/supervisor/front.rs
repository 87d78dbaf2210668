//! The way from a handle to the actor of a key, and the actor that other actors send commands to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Context, Handler, ResponseFuture};
use futures_util::future::{Either, select};
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    by::By,
    cold::{ColdRead, ColdReader},
    command::{Ask, Command},
    provider::Providers,
    refresh::Ports,
    router::Router,
    shed::{Bound, ShedRequests},
    snapshot::Snapshot,
    token::Surroundings,
};
use crate::{
    clock::Clock,
    error::{Cause, Error},
    model::TokenKey,
};

/// Everything that is needed to ask; keeps nothing alive beyond itself.
#[derive(Clone)]
pub(super) struct Front(Arc<FrontInner>);

struct FrontInner {
    snapshot: Arc<Snapshot>,
    providers: Arc<Providers>,
    cold: ColdReader,
    router: Router,
    runtime: Handle,
    clock: Clock,
    shed: Arc<ShedRequests>,
    /// The number of requests that wait for their answer, and its bound.
    waiting: AtomicUsize,
    most_waiting: usize,
}

/// Counts a request for as long as it waits for its answer.
struct InFlight(Front);

impl InFlight {
    fn enter(front: &Front) -> Result<Self, Error> {
        let before = front.0.waiting.fetch_add(1, Ordering::Relaxed);
        let entered = Self(front.clone());
        if before >= front.0.most_waiting {
            front.0.shed.count(Bound::RequestsInFlight);
            return Err(Error::Busy { retry_after: Duration::from_secs(1) });
        }
        Ok(entered)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request is repeated this often if the key's actor dies with it.
const TRIES: u32 = 3;

impl Front {
    pub(super) fn new(around: &Surroundings) -> Self {
        let Ports { snapshot, providers, clock, runtime, .. } = around.refresher.ports();
        Self(Arc::new(FrontInner {
            snapshot: snapshot.clone(),
            providers: providers.clone(),
            cold: ColdReader::new(around.refresher.ports()),
            router: around.router.clone(),
            runtime: runtime.clone(),
            clock: clock.clone(),
            shed: around.shed.clone(),
            waiting: AtomicUsize::new(0),
            most_waiting: around.limits.requests_in_flight,
        }))
    }

    /// The number of requests that wait for their answer.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Carries a command to the key's actor and waits for the answer until the command's deadline.
    pub(super) fn call<C: Command>(
        &self,
        command: C,
        by: By,
    ) -> impl Future<Output = Result<C::Answer, Error>> + Send + use<C> {
        let front = self.clone();
        async move {
            command.check()?;
            if let Some(answer) = command.fast(&front.0.snapshot) {
                return Ok(answer);
            }
            let _in_flight = InFlight::enter(&front)?;
            let configured = front.0.providers.get(command.key().idp()).is_some();
            if !configured && command.needs_idp() {
                return Err(Error::UnknownIdp);
            }
            let deadline = front.0.clock.sleep(command.timeout_after());
            let answer = async {
                if configured && command.wants_token() {
                    match front.0.cold.read(command.key()).await {
                        ColdRead::Published { is_due } => {
                            let answer = command.fast(&front.0.snapshot);
                            if is_due {
                                front.wake(command.key());
                            }
                            if let Some(answer) = answer {
                                return Ok(answer);
                            }
                        }
                        ColdRead::Nothing => return Err(Error::NotConnected),
                        ColdRead::Unknown => {}
                    }
                }
                front.ask(command, by).await
            };
            match select(Box::pin(answer), Box::pin(deadline)).await {
                Either::Left((Err(Error::NotConnected), _)) if !configured => Err(Error::UnknownIdp),
                Either::Left((answer, _)) => answer,
                Either::Right(_) => Err(Error::Timeout),
            }
        }
    }

    /// Has a due token refreshed; nobody waits for it.
    fn wake(&self, key: &TokenKey) {
        let (router, key) = (self.0.router.clone(), key.clone());
        self.0.runtime.spawn(async move { router.route(key, Ask::Wake).await });
    }

    /// Asks until an actor answers. Commands may be repeated: connects and reports by their fingerprints and
    /// generations, refreshes because there is one attempt per key.
    async fn ask<C: Command>(&self, command: C, by: By) -> Result<C::Answer, Error> {
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let routed = self.0.router.route(command.key().clone(), command.clone().ask(by.clone(), reply)).await;
            if let Err(Error::Busy { .. }) = routed {
                self.0.shed.count(Bound::Mailbox);
            }
            routed?;
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
        Err(Error::Unavailable { retry_after: Duration::from_secs(1), cause: Cause::Failing })
    }
}

/// Takes commands as messages. The actor has no state, so it has nothing to fail with and is never replaced.
#[doc(hidden)]
pub struct FrontActor(Front);

impl FrontActor {
    pub(super) fn new(front: Front) -> Self {
        Self(front)
    }
}

impl Actor for FrontActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(1 << 16);
    }
}

/// The answer is a future beside the mailbox: other commands are taken while it waits.
impl<C> Handler<C> for FrontActor
where
    C: Command,
    C::Answer: Send,
{
    type Result = ResponseFuture<Result<C::Answer, Error>>;

    fn handle(&mut self, command: C, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.0.call(command, By::Actor))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::{
        model::TokenKey,
        supervisor::{
            bench::Bench,
            command::{Ask, ChangeRequest, GetStatus, Purge},
            router::RoutedRequest,
            settings::Limits,
        },
    };

    /// Drops what it is asked, as an actor that dies does; reports each request.
    struct Mute(mpsc::UnboundedSender<()>);

    impl Actor for Mute {
        type Context = Context<Self>;
    }

    impl Handler<RoutedRequest> for Mute {
        type Result = ();

        fn handle(&mut self, RoutedRequest { ask, .. }: RoutedRequest, _: &mut Self::Context) {
            self.0.send(()).ok();
            if let Ask::Change(ChangeRequest { reply, .. }) = ask {
                // The answer never comes, and nothing says so.
                std::mem::forget(reply);
            }
        }
    }

    fn front(bench: &Bench, most_waiting: usize) -> (Front, mpsc::UnboundedReceiver<()>) {
        let (asked, heard) = mpsc::unbounded_channel();
        let (_, registries) = watch::channel(Some(Mute(asked).start().recipient()));
        let limits = Limits { requests_in_flight: most_waiting, ..Limits::default() };
        (Front::new(&Surroundings::new(bench.refresher.clone(), Router::new(registries), limits)), heard)
    }

    #[actix::test]
    async fn a_request_is_repeated_three_times_if_its_actor_dies_with_it() {
        let bench = Bench::with_idp("idp");
        let (front, mut heard) = front(&bench, 9);
        let status = front.call(GetStatus::new(&TokenKey::at("idp").user("alice")), By::Application).await;
        assert_eq!(status, Err(Error::Unavailable { retry_after: Duration::from_secs(1), cause: Cause::Failing }));
        assert!((0..3).all(|_| heard.try_recv().is_ok()) && heard.try_recv().is_err());
        assert_eq!(front.waiting(), 0);
    }

    #[actix::test]
    async fn a_provider_that_is_not_configured_is_not_asked_for() {
        let bench = Bench::new();
        let (front, mut heard) = front(&bench, 9);
        let status = front.call(GetStatus::new(&TokenKey::at("idp").user("alice")), By::Application).await;
        assert_eq!(status, Err(Error::UnknownIdp));
        assert!(heard.try_recv().is_err());
    }

    #[actix::test]
    async fn more_requests_than_the_bound_are_refused_and_a_deadline_ends_the_wait() {
        let bench = Bench::with_idp("idp");
        let (front, mut heard) = front(&bench, 1);
        let purge = |user| front.call(Purge::new(&TokenKey::at("idp").user(user)), By::Application);
        let first = actix::spawn(purge("alice"));
        heard.recv().await.unwrap();
        assert!(matches!(purge("bob").await, Err(Error::Busy { .. })));
        bench.manual.advance(Duration::from_secs(10));
        assert_eq!(first.await.unwrap(), Err(Error::Timeout));
        assert_eq!(front.waiting(), 0);
    }
}

//! Other actors send messages; they mean what the methods mean, and work from any runtime.

use actix::{Actor, Context, Handler, Message, Recipient, ResponseFuture};
use token_supervisor::{Acquire, Connect, Error, GetStatus, State, Token, TokenKey, testing::Profile};

use crate::support::{LIFE, World, within};

/// An application's actor that knows nothing of the supervisor but a recipient.
struct Caller {
    tokens: Recipient<Acquire>,
}

#[derive(Message)]
#[rtype(result = "Result<Token, Error>")]
struct Work(TokenKey);

impl Actor for Caller {
    type Context = Context<Self>;
}

impl Handler<Work> for Caller {
    type Result = ResponseFuture<Result<Token, Error>>;

    fn handle(&mut self, Work(key): Work, _: &mut Self::Context) -> Self::Result {
        let answer = self.tokens.send(Acquire::new(&key));
        Box::pin(async move { answer.await.unwrap_or(Err(Error::ShutDown)) })
    }
}

#[actix::test]
async fn an_actor_asks_through_a_recipient() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("alice");
    let registry = supervisor.registry();
    within(registry.send(Connect::new(&key, world.sim.consent("alice")))).await.unwrap();
    assert_eq!(within(registry.send(GetStatus::new(&key))).await.unwrap().state, State::Fresh);
    let caller = Caller { tokens: registry.recipient() }.start();
    world.clock.advance(LIFE);
    let token = within(caller.send(Work(key.clone()))).await.unwrap().unwrap();
    assert_eq!(token.generation().get(), 2);
    supervisor.testing().panic_registry();
    let token = within(caller.send(Work(key))).await.unwrap().unwrap();
    assert_eq!(token.generation().get(), 2);
}

#[test]
fn the_host_s_runtime_may_stop_at_any_time() {
    let world = World::new(Profile::gitlab());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (supervisor, key) = runtime().block_on(world.connected());
    world.sim.next(token_supervisor::testing::Fault::HangAfter);
    world.clock.advance(LIFE);
    runtime().block_on(async {
        let (caller, at_work) = (supervisor.clone(), key.clone());
        tokio::spawn(async move { caller.token(&at_work).await });
        crate::support::eventually("the request has left", || world.sim.requests() == 1).await;
    });
    world.sim.release();
    // No tokio runtime at all: plain futures suffice.
    let token = futures_util::FutureExt::now_or_never(async {}).map(|()| {
        let waiting = supervisor.token(&key);
        runtime().block_on(within(waiting))
    });
    assert_eq!(token.unwrap().unwrap().generation().get(), 2);
    assert_eq!(world.sim.requests(), 1);
}

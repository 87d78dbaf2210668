//! Where a refresh ends the old access token, nobody gets that once the request has left: not from an actor
//! either that was started in the meantime.

use token_supervisor::testing::{Fault, Profile, Standing};

use crate::support::{LIFE, World, eventually, within};

#[tokio::test]
async fn a_new_actor_leaves_a_withdrawn_token_withdrawn() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let old = within(supervisor.token(&key)).await.unwrap();
    // Due, but alive for long.
    world.sim.next(Fault::HangAfter);
    world.clock.advance(LIFE - LIFE / 20);
    eventually("the request has left", || world.sim.requests() == 1).await;
    eventually("the old token is dead", || world.sim.access_died_at(old.access_token()).is_some()).await;
    supervisor.testing().panic_actor(&key).await;
    // Answered by the new actor, once it has read the row.
    within(supervisor.status(&key)).await.unwrap();
    assert!(supervisor.cached(&key).is_none(), "a dead token was handed out");
    world.sim.release();
    let new = within(supervisor.token(&key)).await.unwrap();
    assert_eq!((new.generation().get(), world.sim.requests()), (2, 1));
    assert_eq!(world.stored(supervisor, &key).await, Standing::Current);
}

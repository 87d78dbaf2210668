//! What people are told of a grant is what will happen to it.

use std::time::Duration;

use token_supervisor::{
    Filter, RefreshNow, State,
    testing::{Fault, Profile},
};

use crate::support::{World, eventually, stop, within};

#[tokio::test]
async fn a_refresh_under_way_is_told_by_the_status_as_by_the_list() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    world.sim.next(Fault::Hang);
    let refresh = tokio::spawn(supervisor.call(RefreshNow::new(&key)));
    eventually("the request has left", || world.sim.requests() == 1).await;
    let status = within(supervisor.status(&key)).await.unwrap();
    assert_eq!((status.state, status.next_refresh_at), (State::Refreshing, None));
    let listed = within(supervisor.list(Filter::new())).await.unwrap();
    assert_eq!(listed.items[0].1.state, State::Refreshing);
    world.sim.release();
    let refreshed = within(refresh).await.unwrap().unwrap().status;
    assert_eq!((refreshed.state, refreshed.generation.get()), (State::Fresh, 2));
    stop(supervisor).await;
}

#[tokio::test]
async fn a_next_refresh_is_told_only_where_one_is_to_come() {
    let world = World::new(Profile::gitlab());
    let (supervisor, key) = world.connected().await;
    let next = async || within(supervisor.status(&key)).await.unwrap().next_refresh_at;
    let at_first = next().await.unwrap();
    within(supervisor.hold(&key, "moving house")).await.unwrap();
    assert_eq!(next().await, None, "the grant is held");
    within(supervisor.release(&key)).await.unwrap();
    assert_eq!(next().await, Some(at_first));
    within(supervisor.hold_idp("idp", "moving house")).await.unwrap();
    assert_eq!(next().await, None, "its identity provider is held");
    within(supervisor.release_idp("idp")).await.unwrap();

    // Tried again after a pause: that counts, not when the token is due.
    world.sim.next(Fault::error(400, "temporarily_unavailable"));
    within(supervisor.refresh_now(&key)).await.unwrap_err();
    let status = within(supervisor.status(&key)).await.unwrap();
    assert_eq!(status.state, State::Backoff);
    assert_eq!(status.next_refresh_at, Some(at_first), "the token is good until then");
    within(supervisor.hold(&key, "moving house")).await.unwrap();
    assert_eq!(next().await, None, "it is held, whatever else it waits for");
    within(supervisor.release(&key)).await.unwrap();

    world.clock.advance(Duration::from_secs(60));
    world.sim.next(Fault::DropAfter);
    within(supervisor.refresh_now(&key)).await.unwrap_err();
    let status = within(supervisor.status(&key)).await.unwrap();
    assert_eq!((status.state, status.next_refresh_at), (State::InDoubt, None));
    stop(supervisor).await;
}

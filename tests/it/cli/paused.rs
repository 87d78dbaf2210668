//! A process that is suspended for longer than its timeouts: suspended containers, debuggers, overloaded machines.

use std::time::Duration;

use token_supervisor::testing::Fault;

use super::{Ran, World, started};
use crate::{
    real_time::pass,
    support::{eventually, signal},
};

const PATIENCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_response_that_arrives_while_the_process_is_suspended_is_stored() {
    let world = World::connected();
    let mut refresh = world.command(&["refresh", "gitlab", "alice"]);
    for time in ["PATIENCE", "ATTEMPT_TIMEOUT"] {
        refresh.env(format!("TOKEN_SUPERVISOR__REFRESH__{time}_SECONDS"), PATIENCE.as_secs().to_string());
    }
    world.sim.next(Fault::Hang);
    let child = started(refresh);
    eventually("the refresh request is sent", || world.sim.requests() == 1).await;
    signal("STOP", child.id());
    world.sim.release();
    eventually("the provider has responded", || world.sim.presentations()[0].answered_at.is_some()).await;
    pass(2 * PATIENCE).await;
    signal("CONT", child.id());
    let ran = Ran::new(child.wait_with_output().unwrap()).without_secrets();
    assert!(ran.code == 0 && ran.stdout.starts_with("Refreshed.\n"), "{ran:?}");
    let status = world.json(&["status", "gitlab", "alice"]);
    assert_eq!((&status["generation"], &status["state"]), (&2.into(), &"fresh".into()), "{status}");
    assert_eq!((world.sim.requests(), world.sim.duplicate_spends()), (1, 0));
}

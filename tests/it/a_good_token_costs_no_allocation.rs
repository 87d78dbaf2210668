use std::hint::black_box;

use allocation_counter::measure;
use futures_util::FutureExt;
use token_supervisor::testing::Profile;

use crate::support::{World, stop};

/// Reads often enough that whatever happens now and then has happened.
const READS: usize = 10_000;

#[tokio::test]
async fn reading_a_good_token_allocates_nothing() {
    let world = World::new(Profile::bitbucket());
    let (supervisor, key) = world.connected().await;
    let watch = supervisor.watch(&key).await.unwrap();
    // What a thread sets up once.
    black_box((supervisor.token(&key).await.unwrap(), watch.token().unwrap()));

    let reads: [(&str, &dyn Fn()); 5] = [
        ("token", &|| drop(black_box(supervisor.token(&key).now_or_never().expect("at first poll").unwrap()))),
        ("cached", &|| drop(black_box(supervisor.cached(&key).unwrap()))),
        ("with", &|| assert_ne!(black_box(supervisor.with(&key, |token| token.generation().get())), None)),
        ("watch", &|| drop(black_box(watch.token().unwrap()))),
        ("watch with", &|| assert_ne!(black_box(watch.with(|token| token.generation().get())), None)),
    ];
    for (name, read) in reads {
        let allocations = measure(|| (0..READS).for_each(|_| read())).count_total;
        assert_eq!(allocations, 0, "{name}");
    }
    // The counter does count.
    assert!(measure(|| drop(black_box(key.account("work")))).count_total > 0);

    drop(watch);
    stop(supervisor).await;
}

//! Requests through the actors: two hops, and many concurrent callers.

use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message, System};
use futures_util::future::join_all;
use token_supervisor::{GetStatus, TokenKey};
use tokio::sync::oneshot;

use crate::{
    Size, Stage,
    harness::{median, now, process_time, row, row_within, within},
};

pub(crate) async fn run(size: Size) {
    let stage = Stage::new().await;
    let keys = stage.connect(size.keys.min(1_000)).await;
    hops(&stage, &keys, size).await;
    crowd(&stage, &keys, size).await;
    stage.supervisor.shutdown(Duration::from_secs(10)).await;
}

/// The second of two bare actors, which replies.
struct Last;

impl Actor for Last {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(1 << 16);
    }
}

/// The first of two bare actors, which forwards.
struct First(Addr<Last>);

impl Actor for First {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(1 << 16);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Ask(oneshot::Sender<u64>);

impl Handler<Ask> for First {
    type Result = ();

    fn handle(&mut self, ask: Ask, _: &mut Self::Context) {
        self.0.try_send(ask).ok();
    }
}

impl Handler<Ask> for Last {
    type Result = ();

    fn handle(&mut self, Ask(reply): Ask, _: &mut Self::Context) {
        reply.send(1).ok();
    }
}

/// Measures a command that always goes through registry and token actor, beside two bare actors on their own thread.
async fn hops(stage: &Stage, keys: &[TokenKey], size: Size) {
    let (started, first) = oneshot::channel();
    std::thread::spawn(|| {
        System::new().block_on(async {
            started.send(First(Last.start()).start()).ok();
            std::future::pending::<()>().await;
        });
    });
    let first = first.await.expect("an actor");
    for (at_once, what) in [(1, "a command through the actors, beside two hops"), (64, "the same, 64 at once")] {
        let (mut ours, mut bare, mut used) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..size.rounds {
            let asked: Vec<_> = keys.iter().cycle().skip(round).take(if at_once == 1 { 50 } else { 2_048 }).collect();
            let (started, cpu) = (now(), process_time());
            for some in asked.chunks(at_once) {
                for status in join_all(some.iter().map(|key| stage.supervisor.call(GetStatus::new(key)))).await {
                    status.expect("a status");
                }
            }
            ours.push(started.elapsed() / asked.len() as u32);
            used.push((process_time() - cpu) / asked.len() as u32);
            let started = now();
            for some in asked.chunks(at_once) {
                let ask = |_: &&TokenKey| {
                    let (reply, replied) = oneshot::channel();
                    first.try_send(Ask(reply)).ok();
                    replied
                };
                for replied in join_all(some.iter().map(ask)).await {
                    replied.expect("a reply");
                }
            }
            bare.push(started.elapsed() / asked.len() as u32);
        }
        row(what, (median(ours), median(bare)), "-");
        if at_once > 1 {
            within("  CPU time of a command, its caller included", median(used), Duration::from_micros(5));
        }
    }
}

/// Measures many callers of one token that must be refreshed, beside one caller.
async fn crowd(stage: &Stage, keys: &[TokenKey], size: Size) {
    let (mut many, mut one) = (Vec::new(), Vec::new());
    let (supervisor, requests) = (&stage.supervisor, stage.sim.requests());
    for (round, key) in keys.iter().take(2 * size.rounds.min(9)).enumerate() {
        let callers = if round % 2 == 0 { size.callers } else { 1 };
        let token = supervisor.token(key).await.expect("a token");
        supervisor.report_rejected(key, token.generation()).await.expect("a status");
        let started = now();
        let waiting: Vec<_> = (0..callers)
            .map(|_| {
                let (supervisor, key) = (supervisor.clone(), key.clone());
                tokio::spawn(async move { supervisor.token(&key).await })
            })
            .collect();
        for caller in waiting {
            caller.await.expect("a caller").expect("a token");
        }
        (if callers > 1 { &mut many } else { &mut one }).push(started.elapsed());
    }
    assert_eq!(stage.sim.requests() - requests, (many.len() + one.len()) as u64, "one request for all callers");
    let (many, one) = (median(many), median(one));
    let limit = one.mul_f64(1.1) + Duration::from_millis(20);
    let what = format!("{} callers of one refresh, beside one", size.callers);
    row_within(&what, (many, one), limit, "1.1 + 20 ms");
}

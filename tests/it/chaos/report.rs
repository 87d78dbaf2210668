//! What is told at the end.

use std::{fmt, sync::atomic::Ordering};

use super::{
    judge::{Judged, Reason, Sums},
    world::World,
};

pub(super) struct Report<'a> {
    pub(super) world: &'a World,
    pub(super) judged: &'a Judged,
    pub(super) seed: u64,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { world, judged, seed } = self;
        writeln!(f, "chaos: seed {seed}, {:.0} s", world.age().as_secs_f64())?;
        let counts = world.counts.lock().unwrap();
        let counts: Vec<_> = counts.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        let lost: usize = world.proxies.iter().map(|proxy| proxy.lost()).sum();
        writeln!(f, "  {}; acknowledgements lost: {lost}", counts.join(", "))?;
        let (asked, cut_off, hit) = (world.requests.load(Ordering::Relaxed), judged.cut_off, judged.hit);
        writeln!(
            f,
            "  {asked} requests of callers, {cut_off} cut off by the end of their replica; {hit} refreshes in flight whose sender \
             was killed or frozen"
        )?;
        writeln!(
            f,
            "  a killed replica ran for at most {:?} with a response that it had not persisted",
            judged.longest
        )?;
        for (name, sums) in &judged.sums {
            let Sums { requests, rotations, resent, refused, superseded, late, disconnects, .. } = sums;
            let lost = |reason| sums.lost.get(&reason).copied().unwrap_or(0);
            writeln!(
                f,
                "  {name}: {requests} requests, {rotations} rotations, {resent} sent again and accepted, {refused} sent again \
                 and refused, {superseded} superseded, {late} responses too late; {disconnects} disconnects; lost: {} never \
                 delivered, {} before they were persisted, {} after the grace, {} overtaken, {} in doubt for too long",
                lost(Reason::NeverDelivered),
                lost(Reason::BeforePersistence),
                lost(Reason::AfterGrace),
                lost(Reason::Overtaken),
                lost(Reason::InDoubt),
            )?;
        }
        Ok(())
    }
}

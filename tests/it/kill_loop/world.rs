//! What outlives the process, and how it is started, watched and killed.

use std::time::{Duration, Instant};

use token_supervisor::{TokenKey, testing::Standing};

use super::{
    LIMIT, POLL,
    disk::Disk,
    ledger::{Evidence, Ledger, Left},
    now,
    process::{Event, Process, Program, SETTLE},
    providers::{GRANTS_AT_EACH, Providers},
    report::{Figures, Report},
};
use crate::dice::Dice;

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) disk: Disk,
    pub(super) providers: Providers,
    program: Program,
    ledger: Ledger,
    figures: Figures,
    began: Instant,
    /// The life before, whose requests may still be processed: what it left, and how many presentations each
    /// provider has logged at its end.
    unsettled: Option<(Vec<Left>, Vec<usize>)>,
    /// Told before the life before was judged, looked at afterwards.
    early_events: Vec<Event>,
}

impl World {
    pub(super) fn new(seed: u64, disk: Disk) -> Self {
        let providers = Providers::start();
        let users = (0..GRANTS_AT_EACH).cycle().map(|user| format!("user-{user}"));
        let grants = users.zip(Providers::of_grants()).map(|(user, (idp, _))| TokenKey::at(idp).user(user)).collect();
        Self {
            dice: Dice(seed),
            program: Program::new(&disk, &providers, grants),
            disk,
            providers,
            ledger: Ledger::new(Providers::of_grants()),
            figures: Figures { seed, ..Figures::default() },
            began: now(),
            unsettled: None,
            early_events: Vec::new(),
        }
    }

    /// Starts the process and waits until it runs. What hangs of its predecessor is processed late, while the new
    /// process already looks at what was left, or never.
    pub(super) fn start(&mut self) -> Process {
        self.providers.hold_requests(&mut self.dice);
        let started = now();
        let mut process = Process::start(&self.program);
        while !self.early_events.iter().any(|event| matches!(event, Event::Ready)) {
            assert!(started.elapsed() < LIMIT, "the process does not start");
            std::thread::sleep(POLL);
            self.early_events.extend(process.events(&self.program));
        }
        std::thread::sleep(self.dice.duration(SETTLE / 2).saturating_sub(started.elapsed()));
        self.settle_beside(&process, started);
        process
    }

    /// Starts the process, to be killed while it starts.
    pub(super) fn start_hastily(&mut self) -> Process {
        self.providers.hold_requests(&mut self.dice);
        let (started, process) = (now(), Process::start(&self.program));
        self.settle_beside(&process, started);
        process
    }

    /// Lets what hangs of the life before be processed while this process is there. `settle` has a meaning only if the
    /// world keeps to it: on a busy machine it could end between two steps here, so that the token is spent twice, by
    /// this process and then by the dead one. So it stands still meanwhile.
    fn settle_beside(&mut self, process: &Process, started: Instant) {
        process.pause();
        // It sends nothing again before `settle` has passed since it found the request, so since its start.
        self.settle(started.elapsed() < SETTLE);
        process.go_on();
    }

    /// Ends what is left of the life before at the providers, and judges it.
    fn settle(&mut self, late_is_in_time: bool) {
        let Some((left, ends)) = self.unsettled.take() else { return };
        let dice = Some(&mut self.dice).filter(|_| late_is_in_time);
        let presentations = self.providers.settle(ends, dice, &mut self.figures.late);
        self.ledger.judge(Evidence { presentations, left });
    }

    /// Lets some of this time pass.
    pub(super) fn pass_some(&mut self, process: &mut Process, limit: Duration) {
        let (began, duration) = (now(), self.dice.duration(limit));
        self.hear(process);
        while let Some(left) = duration.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(POLL));
            self.hear(process);
        }
    }

    /// Waits until so many refreshes are in flight: requests that were received and are not answered.
    pub(super) fn until_in_flight(&mut self, process: &mut Process, all: usize, at_each: usize) {
        let began = now();
        loop {
            self.hear(process);
            let in_flight = self.providers.in_flight();
            let sum: usize = in_flight.iter().sum();
            if sum >= all && in_flight.iter().all(|count| *count >= at_each) {
                self.figures.in_flight += sum;
                return;
            }
            assert!(began.elapsed() < LIMIT, "too few refreshes are in flight: {in_flight:?}");
            std::thread::sleep(POLL);
        }
    }

    /// While the store is silent: waits until so many answers are in the journal. Whether callers are given what came
    /// is no matter: it may have ended on its way.
    pub(super) fn until_journaled(&mut self, process: &mut Process, answers: usize) {
        let began = now();
        while self.program.journaled() < answers {
            self.hear(process);
            assert!(began.elapsed() < LIMIT, "nothing is journaled while the store is silent");
            std::thread::sleep(POLL);
        }
    }

    pub(super) fn kill(&mut self, process: Process) {
        self.figures.kills += 1;
        self.end(process);
    }

    /// Kills it, though nothing may be in flight.
    pub(super) fn kill_early(&mut self, process: Process) {
        self.figures.early += 1;
        self.end(process);
    }

    fn end(&mut self, mut process: Process) {
        process.kill();
        self.hear(&mut process);
        self.disk.end_silence();
        self.disk.free();
        self.look_at_what_is_left();
    }

    fn look_at_what_is_left(&mut self) {
        let ends = self.providers.end_of_life();
        let kept = self.disk.left(self.grants());
        self.figures.journaled += kept.iter().flatten().filter(|kept| kept.journaled).count();
        let left = kept.iter().enumerate().map(|(grant, kept)| {
            let tokens = kept.iter().filter_map(|kept| kept.refresh_token.as_ref());
            Left {
                generation: kept.iter().map(|kept| kept.generation.get()).max().unwrap_or(0),
                tokens: tokens.filter_map(|token| self.providers.of(grant).token_id(token)).collect(),
            }
        });
        self.unsettled = Some((left.collect(), ends));
    }

    /// Reads what the process told, and has users consent who are asked to.
    fn hear(&mut self, process: &mut Process) {
        let mut events = std::mem::take(&mut self.early_events);
        events.extend(process.events(&self.program));
        for event in events {
            match event {
                Event::Ready => {}
                Event::Seen { grant, generation } => self.ledger.seen(grant, generation),
                Event::ReconnectRequired { grant, reason } => {
                    let sim = self.providers.of(grant);
                    let consent = |subject: &str| {
                        sim.consent(subject);
                        sim.newest(subject).unwrap()
                    };
                    let token = self.ledger.refused(grant, &reason, consent);
                    process.connect(grant, token);
                }
                Event::Failed { grant, error } => self.ledger.fail(grant, &error),
                Event::CutOff { under_way, .. } if process.was_killed() => {
                    self.figures.cut_off += usize::from(under_way);
                }
                Event::CutOff { grant, error, .. } => self.ledger.fail(grant, &format!("no answer: {error}")),
            }
        }
    }

    /// Without faults, until every grant has brought one more token; then the process ends by itself.
    pub(super) fn live_on_and_stop(&mut self, mut process: Process) {
        self.providers.hold_no_more();
        let began = now();
        while let Some(grant) = (0..self.grants().len()).find(|grant| !self.ledger.is_ahead(*grant)) {
            if began.elapsed() > LIMIT {
                self.ledger.fail(grant, "it brings no token any more");
            }
            std::thread::sleep(POLL);
            self.hear(&mut process);
        }
        process.stop();
        self.hear(&mut process);
        self.look_at_what_is_left();
        self.settle(false);
    }

    /// After the last life every grant works, and the kills were what they should be.
    pub(super) fn judge_the_end(&self) {
        self.ledger.close();
        for (grant, kept) in self.disk.stored(self.grants()).iter().enumerate() {
            let [kept] = &kept[..] else { self.ledger.fail(grant, "after a shutdown the store has everything") };
            let standing = self.providers.of(grant).standing(kept.refresh_token.as_ref().unwrap());
            assert_eq!(standing, Standing::Current, "grant {grant}");
        }
        for (name, sim) in &self.providers.all {
            let sums = &self.ledger.sums[name];
            assert_eq!(sim.duplicate_spends(), sums.refused_duplicates, "{name}: as the provider counts them");
            assert_eq!(sim.requests(), sums.requests as u64, "{name}: every request is in the ledger");
        }
        assert!(self.program.judge_the_log().contains("stopped"), "the log is looked at");
        let healed: usize = self.ledger.sums.values().map(|sums| sums.healed).sum();
        let Figures { kills, in_flight, cut_off, .. } = self.figures;
        assert!(healed > 0 && in_flight >= 50 * kills && cut_off >= 10 * kills, "the kills hit nothing");
    }

    fn grants(&self) -> &[TokenKey] {
        &self.program.grants
    }

    pub(super) fn report(&self) -> Report<'_> {
        Report { figures: &self.figures, ledger: &self.ledger, took: self.began.elapsed() }
    }
}

//! What can happen in a history, and how a seed chooses it.

use std::time::Duration;

use token_supervisor::testing::{Fault, Oddity, StoreFault};

use crate::support::LIFE;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Ask {
        min_ttl: Duration,
    },
    AskAndVanish,
    RefreshNow,
    /// Several resource servers refuse the token of the generation so far back.
    Reject {
        back: u64,
        reporters: u32,
    },
    /// Also how a machine wakes from suspend: both clocks have gone on.
    Advance(Duration),
    /// The wall clock jumps by so many seconds; and back again after the next step, unless it stays.
    WallClock {
        seconds: i64,
        stays: bool,
    },
    Fault(Fault),
    Release,
    Store(StoreFault),
    Journal {
        fails: bool,
    },
    PanicActor,
    PanicRegistry,
    CrashSystem,
    ConnectNew,
    /// With an earlier consent, counted from the first.
    ConnectAgain {
        which: usize,
    },
    /// With the latest consent, under another key.
    ConnectElsewhere,
    RefreshElsewhere,
    ConnectWithoutRefreshToken,
    Disconnect {
        revoke: bool,
    },
    Revocations {
        fail: bool,
    },
    RequireReconnect,
    /// Sends a refused refresh token once more.
    Retry,
    /// Takes a disconnect back, if there was one.
    Restore,
    Hold(Held),
    LetGo(Held),
    /// An administrator ends the user's sessions.
    EndFamily,
    /// A provider that did not rotate refresh tokens begins to.
    StartToRotate,
    Restart,
}

/// What people hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Held {
    Grant,
    Idp,
}

/// How many steps and scenes a history has.
const LENGTH: usize = 20;

pub(super) fn story(seed: u64) -> Vec<Step> {
    let mut random = Random(seed);
    let mut steps = Vec::new();
    for _ in 0..LENGTH {
        match random.below(8) {
            0 => steps.extend(scene(&mut random)),
            _ => steps.push(step(&mut random)),
        }
    }
    steps
}

fn step(random: &mut Random) -> Step {
    match random.below(100) {
        0..16 => Step::Ask { min_ttl: random.of(&[Duration::ZERO, Duration::ZERO, seconds(600), LIFE, LIFE * 2]) },
        16 => Step::Restore,
        17 => Step::Hold(held(random)),
        18 => Step::LetGo(held(random)),
        19 => Step::Retry,
        20..23 => Step::AskAndVanish,
        23..28 => Step::RefreshNow,
        28..32 => Step::Reject { back: random.below(3), reporters: random.of(&[1, 1, 10]) },
        32..55 => Step::Advance(random.of(&[
            Duration::from_millis(300),
            seconds(2),
            seconds(8),
            seconds(31),
            seconds(200),
            LIFE / 2,
            LIFE,
            LIFE * 8,
        ])),
        55..57 => Step::WallClock { seconds: random.of(&[-3_600, -60, 60, 3_600]), stays: random.below(4) == 0 },
        57..71 => Step::Fault(fault(random)),
        71..75 => Step::Release,
        75..81 => Step::Store(random.of(&[
            StoreFault::None,
            StoreFault::None,
            StoreFault::Down,
            StoreFault::ClaimsFail,
            StoreFault::CommitsFail,
            StoreFault::ClaimAcknowledgementsLost,
            StoreFault::CommitAcknowledgementsLost,
            StoreFault::CommitsHang,
        ])),
        81..83 => Step::Journal { fails: random.below(2) == 0 },
        83..87 => death(random),
        87..90 => Step::ConnectNew,
        90 => Step::ConnectAgain { which: random.below(3) as usize },
        91 => Step::ConnectElsewhere,
        92 => Step::ConnectWithoutRefreshToken,
        93 => Step::Disconnect { revoke: random.below(2) == 0 },
        94 => Step::Revocations { fail: random.below(2) == 0 },
        95 => Step::RequireReconnect,
        96 => Step::EndFamily,
        97 => Step::StartToRotate,
        _ => Step::Restart,
    }
}

fn fault(random: &mut Random) -> Fault {
    let cut = random.below(700) as usize;
    let odd = [random.of(&Oddity::ALL), random.of(&Oddity::ALL)].map(Fault::Odd);
    random.of(&[
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::CutAt(cut),
        Fault::CloseDelimited,
        Fault::CloseDelimitedCutAt(cut / 2),
        Fault::Delay(seconds(3)),
        Fault::SlowBody(seconds(3)),
        Fault::Status(429, Some("3".to_owned())),
        Fault::Status(429, Some("0".to_owned())),
        Fault::Status(502, None),
        Fault::Status(503, Some("Thu, 01 Jan 1970 00:00:00 GMT".to_owned())),
        Fault::error(400, "E17"),
        Fault::StatusAfter(502),
        Fault::Garbage,
        Fault::Redirect,
        Fault::LateProcessing(seconds(8)),
        Fault::WithoutRefreshToken,
        Fault::error(400, "invalid_client"),
        Fault::error(503, "invalid_grant"),
        odd[0].clone(),
        odd[1].clone(),
        Fault::Hang,
        Fault::HangAfter,
    ])
}

fn death(random: &mut Random) -> Step {
    random.of(&[Step::PanicActor, Step::PanicActor, Step::PanicRegistry, Step::CrashSystem])
}

fn held(random: &mut Random) -> Held {
    random.of(&[Held::Grant, Held::Idp])
}

/// What rarely comes together by chance.
fn scene(random: &mut Random) -> Vec<Step> {
    let hang = Step::Fault(random.of(&[Fault::Hang, Fault::HangAfter]));
    let (revoke, which) = (random.below(2) == 0, random.below(2) as usize);
    let connect = random.of(&[
        Step::ConnectNew,
        Step::ConnectAgain { which },
        Step::ConnectWithoutRefreshToken,
        Step::ConnectElsewhere,
    ]);
    match random.below(12) {
        // Disconnect and connect around a late answer.
        0 => vec![hang, Step::RefreshNow, Step::Disconnect { revoke }, connect, Step::RefreshElsewhere, Step::Release],
        // A connect crosses `invalid_grant`, or any other answer.
        1 => vec![hang, Step::RefreshNow, Step::EndFamily, connect, Step::Release],
        2 => vec![hang, Step::RefreshNow, connect, Step::Release, Step::RefreshNow],
        // Something dies while a request is sent.
        3 => vec![hang, Step::RefreshNow, death(random), Step::Ask { min_ttl: LIFE / 2 }, Step::Release],
        // The store is away while an answer comes.
        4 => {
            let fault = random.of(&[
                StoreFault::Down,
                StoreFault::CommitsFail,
                StoreFault::CommitAcknowledgementsLost,
                StoreFault::CommitsHang,
            ]);
            let death = death(random);
            let between = random.of(&[Step::Advance(seconds(1)), death, Step::ConnectNew, Step::Restart]);
            vec![Step::Store(fault), Step::RefreshNow, between, Step::Store(StoreFault::None)]
        }
        // The claim's fate is unknown.
        5 => {
            let fault = random.of(&[StoreFault::ClaimAcknowledgementsLost, StoreFault::ClaimsFail]);
            vec![Step::Store(fault), Step::RefreshNow, Step::Advance(seconds(2)), Step::Store(StoreFault::None)]
        }
        // A replayed connect after a rotation.
        6 => vec![Step::RefreshNow, Step::Advance(Duration::from_millis(300)), Step::ConnectAgain { which }],
        // A disconnect is taken back, perhaps too late.
        7 => vec![Step::Disconnect { revoke }, Step::Advance(seconds(which as u64 * 8)), Step::Restore, connect],
        8 => vec![hang, Step::RefreshNow, Step::Disconnect { revoke }, Step::Restore, Step::Release, Step::Restore],
        // What is due and what is under way when something is held.
        9 => {
            let held = held(random);
            let later = Step::Advance(LIFE);
            vec![hang, Step::RefreshNow, Step::Hold(held), Step::Release, later, Step::RefreshNow, Step::LetGo(held)]
        }
        // A provider that answers oddly for a while.
        10 => {
            let odd = || [Step::Advance(LIFE), Step::Ask { min_ttl: Duration::ZERO }, Step::RefreshNow];
            let faults: Vec<_> = (0..4).map(|_| Step::Fault(Fault::Odd(random.of(&Oddity::ALL)))).collect();
            faults.into_iter().chain(odd()).chain(odd()).collect()
        }
        // A resource server that refuses every token.
        _ => {
            let round = [Step::Reject { back: 0, reporters: 5 }, Step::Ask { min_ttl: Duration::ZERO }];
            round.iter().cycle().take(8).cloned().collect()
        }
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Small and good enough: the point is that a seed replays.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

//! Faults: what can go wrong with one request, and which request it goes wrong with.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// What goes wrong with one refresh. "Processed" means that the refresh token is spent.
///
/// A request that has arrived is processed even if its client does not wait for the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Processed and answered after this time.
    Delay(Duration),
    /// Not processed; the connection is closed without an answer.
    DropBefore,
    /// Processed; the connection is closed without an answer.
    DropAfter,
    /// Processed; the connection is closed after this many bytes of the answer, counted from its
    /// status line. An answer that is no longer than this is complete.
    CutAt(usize),
    /// Not processed; answered with this status and, if given, this `Retry-After`.
    Status(u16, Option<String>),
    /// Processed, but answered with this status, as by a proxy that lost patience.
    StatusAfter(u16),
    /// Not processed; 200 with a web page.
    Garbage,
    /// Processed; the head of the answer comes at once, its body in pieces over this time.
    SlowBody(Duration),
    /// The connection is closed at once without an answer; processed after this time all the same.
    LateProcessing(Duration),
    /// Processed; the answer has neither length nor chunks, its end is the end of the connection.
    CloseDelimited,
    /// Like [`CloseDelimited`](Self::CloseDelimited), with only this many bytes of the body.
    CloseDelimitedCutAt(usize),
    /// Not processed; 302 to another page.
    Redirect,
    /// Not processed; this status with a JSON body that has this `error`.
    Error {
        /// The HTTP status.
        status: u16,
        /// The `error` in the body.
        code: String,
    },
    /// Not processed; answered with exactly this.
    Answer(Canned),
    /// Processed, but answered with exactly this.
    AnswerAfter(Canned),
    /// Kept waiting, unprocessed, until [`release`](super::SimulatedIdp::release); then processed and
    /// answered. Never processed if it is [abandoned](super::SimulatedIdp::abandon_first) or the server ends.
    Hang,
    /// Processed, then the answer is kept back until [`release`](super::SimulatedIdp::release). Never
    /// answered if it is [abandoned](super::SimulatedIdp::abandon_first) or the server ends.
    HangAfter,
    /// Processed without rotation: the refresh token stays good, and the answer leaves it out.
    WithoutRefreshToken,
    /// Processed with rotation, but the answer leaves the new refresh token out.
    LostRefreshToken,
    /// Processed with rotation, and the answer says that it belongs to this `sub`.
    Subject(String),
}

/// An answer that a test makes up. How it is framed is left to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Canned {
    /// The HTTP status.
    pub status: u16,
    /// Names and values; what is no header, or is about framing, is left out.
    pub headers: Vec<(String, String)>,
    /// The body, byte by byte.
    pub body: Vec<u8>,
}

impl Canned {
    /// An answer without headers of its own.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl Fault {
    /// `Error` with this status and code.
    pub fn error(status: u16, code: impl Into<String>) -> Self {
        Self::Error { status, code: code.into() }
    }

    /// The name under which it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::DropBefore => "drop_before",
            Self::DropAfter => "drop_after",
            Self::CutAt(_) => "cut_at",
            Self::Status(429, _) => "status_429",
            Self::Status(502, _) => "status_502",
            Self::Status(503, _) => "status_503",
            Self::Status(..) => "status",
            Self::StatusAfter(_) => "status_after",
            Self::Garbage => "garbage",
            Self::SlowBody(_) => "slow_body",
            Self::LateProcessing(_) => "late_processing",
            Self::CloseDelimited => "close_delimited",
            Self::CloseDelimitedCutAt(_) => "close_delimited_cut_at",
            Self::Redirect => "redirect",
            Self::Error { .. } => "error",
            Self::Answer(_) => "answer",
            Self::AnswerAfter(_) => "answer_after",
            Self::Hang => "hang",
            Self::HangAfter => "hang_after",
            Self::WithoutRefreshToken => "without_refresh_token",
            Self::LostRefreshToken => "lost_refresh_token",
            Self::Subject(_) => "subject",
        }
    }

    /// The same with its size or duration drawn anew, up to the given one.
    fn drawn(self, random: &mut u64) -> Self {
        let mut up_to = |limit: u64| splitmix64(random) % limit.saturating_add(1).max(1);
        let mut some_of = |limit: Duration| Duration::from_millis(up_to(limit.as_millis().try_into().unwrap_or(0)));
        match self {
            Self::Delay(limit) => Self::Delay(some_of(limit)),
            Self::SlowBody(limit) => Self::SlowBody(some_of(limit)),
            Self::LateProcessing(limit) => Self::LateProcessing(some_of(limit)),
            Self::CutAt(limit) => Self::CutAt(up_to(limit as u64) as usize),
            Self::CloseDelimitedCutAt(limit) => Self::CloseDelimitedCutAt(up_to(limit as u64) as usize),
            other => other,
        }
    }
}

/// A random mix of faults, the same for the same seed and order of requests.
///
/// Sizes and durations are upper limits here: each fault draws its own. The default has no faults.
#[derive(Clone, Debug, Default)]
pub struct Chaos {
    random: u64,
    mix: Vec<(Fault, u32)>,
}

impl Chaos {
    /// A mix without faults, to be filled by [`with`](Self::with).
    pub fn new(seed: u64) -> Self {
        Self { random: seed, mix: Vec::new() }
    }

    /// Adds a fault that befalls `per_mille` of a thousand requests. What exceeds a thousand in sum
    /// never happens.
    pub fn with(mut self, fault: Fault, per_mille: u32) -> Self {
        self.mix.push((fault, per_mille));
        self
    }

    fn draw(&mut self) -> Option<Fault> {
        if self.mix.is_empty() {
            return None;
        }
        let mut roll = u32::try_from(splitmix64(&mut self.random) % 1_000).unwrap_or(0);
        let drawn = self.mix.iter().find(|(_, per_mille)| {
            let hit = roll < *per_mille;
            roll = roll.saturating_sub(*per_mille);
            hit
        });
        drawn.map(|(fault, _)| fault.clone()).map(|fault| fault.drawn(&mut self.random))
    }
}

/// What befalls the requests to come: the queue first, then the standing fault, then chaos.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) queue: VecDeque<Fault>,
    pub(super) always: Option<Fault>,
    pub(super) chaos: Chaos,
    pub(super) injected: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// The fault of the next request.
    pub(super) fn take(&mut self) -> Option<Fault> {
        let fault = self.queue.pop_front().or_else(|| self.always.clone()).or_else(|| self.chaos.draw());
        if let Some(fault) = &fault {
            *self.injected.entry(fault.name()).or_default() += 1;
        }
        fault
    }
}

/// The next number of a small generator (Vigna's splitmix64): good enough for dice, not for keys.
pub(super) fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_comes_first_then_the_standing_fault_then_chaos() {
        let mut faults = Faults { chaos: Chaos::new(1).with(Fault::Garbage, 1_000), ..Faults::default() };
        faults.queue.extend([Fault::DropBefore, Fault::DropAfter]);
        faults.always = Some(Fault::Redirect);
        let taken: Vec<_> = (0..3).map(|_| faults.take().unwrap().name()).collect();
        assert_eq!(taken, ["drop_before", "drop_after", "redirect"]);
        faults.always = None;
        assert_eq!(faults.take(), Some(Fault::Garbage));
        faults.chaos = Chaos::default();
        assert_eq!(faults.take(), None);
        assert_eq!(faults.injected.values().sum::<u64>(), 4);
    }

    #[test]
    fn chaos_repeats_with_its_seed_and_keeps_its_shares_and_limits() {
        let chaos = |seed| Chaos::new(seed).with(Fault::CutAt(100), 100).with(Fault::DropBefore, 50);
        let draws = |mut chaos: Chaos| (0..10_000).map(|_| chaos.draw()).collect::<Vec<_>>();
        assert_eq!(draws(chaos(7)), draws(chaos(7)));
        assert_ne!(draws(chaos(7)), draws(chaos(8)));
        let (mut cuts, mut drops) = (0, 0);
        for fault in draws(chaos(7)).into_iter().flatten() {
            match fault {
                Fault::CutAt(at) if at <= 100 => cuts += 1,
                Fault::DropBefore => drops += 1,
                other => panic!("not in the mix: {other:?}"),
            }
        }
        assert!((800..1_200).contains(&cuts) && (350..650).contains(&drops), "{cuts} {drops}");
    }
}

//! Faults: what can go wrong with a request, and which requests are affected.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// What goes wrong with one refresh. "Processed" means that the refresh token is spent.
///
/// A request that has arrived is processed even if its client does not wait for the response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Processed after this time, then the response is sent.
    Delay(Duration),
    /// Not processed; the connection is closed without a response.
    DropBefore,
    /// Processed; the connection is closed without a response.
    DropAfter,
    /// Processed; the connection is closed after this many bytes of the response, counted from its
    /// status line. A response that is not longer is sent completely.
    CutAt(usize),
    /// Not processed; the response has this status and, if given, this `Retry-After`.
    Status(u16, Option<String>),
    /// Processed, but the response has this status, as from a proxy whose timeout is over.
    StatusAfter(u16),
    /// Not processed; the response is a web page with status 200.
    Garbage,
    /// Processed; the head of the response is sent at once, its body in pieces over this time.
    SlowBody(Duration),
    /// The connection is closed at once without a response; the request is still processed after this time.
    LateProcessing(Duration),
    /// Processed; the response has neither length nor chunks, and ends with the connection.
    CloseDelimited,
    /// Like [`CloseDelimited`](Self::CloseDelimited), with only this many bytes of the body.
    CloseDelimitedCutAt(usize),
    /// Not processed; the response redirects to another page (302).
    Redirect,
    /// Not processed; the response has this status and a JSON body with this `error`.
    Error {
        /// The HTTP status.
        status: u16,
        /// The `error` in the body.
        code: String,
    },
    /// Not processed; the response is exactly this one.
    Answer(Canned),
    /// Processed, but the response is exactly this one.
    AnswerAfter(Canned),
    /// The request waits, unprocessed, until [`release`](super::SimulatedIdp::release). It is never processed
    /// if it is [abandoned](super::SimulatedIdp::abandon_first) or the server stops.
    Hang,
    /// Processed; the response waits until [`release`](super::SimulatedIdp::release). It is never sent if the
    /// request is [abandoned](super::SimulatedIdp::abandon_first) or the server stops.
    HangAfter,
    /// Processed without rotation: the refresh token stays valid, and the response omits it.
    WithoutRefreshToken,
    /// Processed with rotation, but the response omits the new refresh token.
    LostRefreshToken,
    /// Processed with rotation, and the response has this `sub`.
    Subject(String),
    /// The refresh is processed, and the complete response has this flaw.
    Odd(Oddity),
}

/// A flaw of a response that has everything a client needs. A provider that answers with forms has only those that forms
/// can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Oddity {
    /// The body is compressed, although no request asked for it.
    Gzip,
    /// The same, with zlib's format.
    Deflate,
    /// A notice of PHP before the JSON object.
    NoticeBefore,
    /// A comment after it.
    CommentAfter,
    /// A NUL after it.
    NulAfter,
    /// A member in Latin-1.
    Latin1,
    /// A member with a raw control character.
    ControlCharacter,
    /// A member with the value `NaN`.
    NotANumber,
    /// There is a refresh token and no access token.
    WithoutAccessToken,
    /// Nothing says how long the access token lives.
    WithoutLifetime,
    /// The access token lives for 0 seconds, which means nothing.
    ZeroLifetime,
    /// `expires_in` is a point in time.
    LifetimeAsEpoch,
    /// `expires_in` is a text with a unit.
    LifetimeAsText,
}

impl Oddity {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Gzip,
        Self::Deflate,
        Self::NoticeBefore,
        Self::CommentAfter,
        Self::NulAfter,
        Self::Latin1,
        Self::ControlCharacter,
        Self::NotANumber,
        Self::WithoutAccessToken,
        Self::WithoutLifetime,
        Self::ZeroLifetime,
        Self::LifetimeAsEpoch,
        Self::LifetimeAsText,
    ];
}

/// A response that a test makes up. The server decides its framing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Canned {
    /// The HTTP status.
    pub status: u16,
    /// Names and values; invalid headers and framing headers are omitted.
    pub headers: Vec<(String, String)>,
    /// The body, byte by byte.
    pub body: Vec<u8>,
}

impl Canned {
    /// Creates a response without headers.
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
    /// Creates an [`Error`](Self::Error) with this status and code.
    pub fn error(status: u16, code: impl Into<String>) -> Self {
        Self::Error { status, code: code.into() }
    }

    /// Returns the name under which the fault is counted.
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
            Self::Odd(_) => "odd",
        }
    }

    /// Returns the fault with a random size or duration, up to the given one.
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
/// Sizes and durations of the mix are upper limits: each fault gets a random one. The default has no faults.
#[derive(Clone, Debug, Default)]
pub struct Chaos {
    random: u64,
    mix: Vec<(Fault, u32)>,
}

impl Chaos {
    /// Creates a mix without faults, to be filled by [`with`](Self::with).
    pub fn new(seed: u64) -> Self {
        Self { random: seed, mix: Vec::new() }
    }

    /// Adds a fault for `per_mille` of a thousand requests. Shares beyond a sum of one thousand have
    /// no effect.
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

/// The faults of later requests: first the queue, then the permanent fault, then the random mix.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) queue: VecDeque<Fault>,
    pub(super) always: Option<Fault>,
    pub(super) chaos: Chaos,
    pub(super) injected: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// Takes the fault of the next request.
    pub(super) fn take(&mut self) -> Option<Fault> {
        let fault = self.queue.pop_front().or_else(|| self.always.clone()).or_else(|| self.chaos.draw());
        if let Some(fault) = &fault {
            *self.injected.entry(fault.name()).or_default() += 1;
        }
        fault
    }
}

/// Returns the next number of a small generator (Vigna's splitmix64): good enough for tests, not for keys.
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

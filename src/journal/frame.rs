//! The frames of a journal file: `length u32 | crc32 u32 | body`, little-endian; the body is a kind byte, then a sealed
//! entry (kind 1) or an attempt id (kind 2).
//!
//! To add a kind: give it the next number; older versions refuse a file that contains it.

use std::io::{self, Read};

use crate::model::{Id, Sealed};

pub(super) enum FrameBody {
    Entry(Sealed),
    /// The store has the response of this attempt.
    Mark(Id),
}

pub(super) enum FrameRead {
    Frame {
        body: FrameBody,
        size: u64,
    },
    /// A whole frame, of a kind that this version does not know.
    Newer,
    /// Not a whole frame.
    Bad,
}

/// # Errors
/// The entry is larger than a reader accepts.
pub(super) fn entry(sealed: &Sealed) -> io::Result<Vec<u8>> {
    if sealed.0.len() >= MAX_BODY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the journal entry is too large: the limit is 16 MiB"));
    }
    Ok(frame(ENTRY, &sealed.0))
}

pub(super) fn mark(attempt: Id) -> Vec<u8> {
    frame(MARK, &attempt.0)
}

/// Reads the next frame from a file that has `rest` bytes left.
pub(super) fn read(from: &mut impl Read, rest: u64) -> io::Result<FrameRead> {
    let mut head = [0; HEAD];
    if rest <= HEAD as u64 {
        return Ok(FrameRead::Bad);
    }
    from.read_exact(&mut head)?;
    let (length, crc) = parse(head);
    // A damaged length must not cause a large allocation: it is checked against the bytes left.
    if length == 0 || length > MAX_BODY || length as u64 > rest - HEAD as u64 {
        return Ok(FrameRead::Bad);
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    if crc32fast::hash(&body) != crc {
        return Ok(FrameRead::Bad);
    }
    let size = (HEAD + length) as u64;
    let mark = || Id::try_from(&body[1..]).map(FrameBody::Mark);
    Ok(match (body[0], mark()) {
        (ENTRY, _) => {
            body.remove(0);
            FrameRead::Frame { body: FrameBody::Entry(Sealed(body)), size }
        }
        (MARK, Ok(mark)) => FrameRead::Frame { body: mark, size },
        _ => FrameRead::Newer,
    })
}

/// Returns whether `rest`, which does not begin with a whole frame, can be the result of a killed process or a power
/// failure: the end of its last frame is missing or zeros. Anything else is damage, also of a single bit.
///
/// An entry is on disk before anything else is written. So no entry can follow a torn frame, and marks can follow only
/// where the torn frames are marks too, because marks may reach the disk out of order.
pub(super) fn is_torn_end(rest: &[u8]) -> bool {
    let end_of_marks = end_of_marks(rest);
    if end_of_marks.is_none_or(|end| end > 0) {
        return end_of_marks.is_some();
    }
    let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let Some((head, body)) = rest.split_first_chunk().filter(|_| written > HEAD) else { return true };
    let (length, crc) = parse(*head);
    // All of the frame is there, so its checksum or its content is wrong.
    let whole = length > 0 && HEAD + length <= written;
    !whole && (1..=MAX_BODY).contains(&length) && !is_whole_but_for_a_bit(body, written - HEAD, length, crc)
}

/// Returns the end of the last of the whole marks in `rest`; zero if there are none, `None` if there is a whole frame
/// that cannot follow a torn one.
fn end_of_marks(rest: &[u8]) -> Option<usize> {
    let (mut at, mut end) = (1, 0);
    while let Some(found) = rest.get(at..).filter(|found| found.len() > HEAD) {
        match whole_frame(found) {
            Some(MARK) if at % MARK_FRAME == 0 => {
                at += MARK_FRAME;
                end = at;
            }
            Some(_) => return None,
            None => at += 1,
        }
    }
    // Each bad frame among them has a mark's length, or length zero where the disk has only zeros.
    let is_mark = |slot: &[u8]| {
        let length = slot.first_chunk().map(|length| u32::from_le_bytes(*length));
        matches!(length, Some(0 | MARK_BODY))
    };
    rest[..end].chunks(MARK_FRAME).all(is_mark).then_some(end)
}

/// Returns whether a frame whose end seems to be missing or zeros is there in full, with one bit changed in its length or
/// among its last bytes: the checksum fits the body of another length, or the body with one of those bits changed back.
fn is_whole_but_for_a_bit(body: &[u8], written: usize, length: usize, crc: u32) -> bool {
    let mut hasher = crc32fast::Hasher::new();
    let fits = |byte: &u8| {
        hasher.update(&[*byte]);
        hasher.clone().finalize() == crc
    };
    if body.iter().any(fits) {
        return true;
    }
    // A changed bit can make the last byte zero; more than a few zeros before it are no ciphertext.
    let Some(frame) = body.get(..length).filter(|_| length - written.min(length) <= 8) else { return false };
    let mut frame = frame.to_vec();
    (written * 8..length * 8).any(|bit| {
        frame[bit / 8] ^= 1 << (bit % 8);
        let fits = crc32fast::hash(&frame) == crc;
        frame[bit / 8] ^= 1 << (bit % 8);
        fits
    })
}

/// Returns the next whole frame in `rest`, with the offset behind it.
pub(super) fn next_whole(rest: &[u8]) -> Option<(FrameRead, usize)> {
    let at = (0..rest.len()).find(|at| whole_frame(&rest[*at..]).is_some())?;
    let mut found = &rest[at..];
    let frame = read(&mut found, (rest.len() - at) as u64).ok()?;
    Some((frame, rest.len() - found.len()))
}

/// Returns the kind of the frame at the start of `bytes` if it is whole. Compares the checksum last, as the slowest
/// check.
fn whole_frame(bytes: &[u8]) -> Option<u8> {
    let (head, rest) = bytes.split_first_chunk()?;
    let (length, crc) = parse(*head);
    let body = rest.get(..length).filter(|body| !body.is_empty())?;
    let plausible = length <= MAX_BODY && (body[0] == ENTRY || (body[0] == MARK && length == MARK_BODY as usize));
    (plausible && crc32fast::hash(body) == crc).then_some(body[0])
}

fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(1 + content.len()).expect("a frame's body is at most 16 MiB");
    let mut frame = Vec::with_capacity(HEAD + 1 + content.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.push(kind);
    frame.extend_from_slice(content);
    let crc = crc32fast::hash(&frame[HEAD..]);
    frame[4..HEAD].copy_from_slice(&crc.to_le_bytes());
    frame
}

fn parse(head: [u8; HEAD]) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = head;
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]))
}

const ENTRY: u8 = 1;
const MARK: u8 = 2;
const HEAD: usize = 8;
const MARK_BODY: u32 = 17;
const MARK_FRAME: usize = HEAD + MARK_BODY as usize;
const MAX_BODY: usize = 16 * 1024 * 1024;
/// The largest possible torn end: one entry, or six hundred thousand marks.
pub(super) const MAX_TORN: u64 = (HEAD + MAX_BODY) as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(numbers: &[u8]) -> Vec<u8> {
        numbers.iter().flat_map(|number| mark(Id([*number; 16]))).collect()
    }

    #[test]
    fn a_torn_end_is_distinguished_from_damage() {
        let whole = entry(&Sealed(vec![9; 92])).unwrap();
        assert_eq!(whole.len() % MARK_FRAME, 1);
        // An entry as long as five marks must not be taken for marks.
        let fifth = entry(&Sealed(vec![9; 5 * MARK_FRAME - HEAD - 1])).unwrap();
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        for (name, rest, torn) in [
            ("short", whole[..50].to_vec(), true),
            ("zeros", vec![0; 5000], true),
            ("zeros after a part", [&whole[..50], &[0; 700]].concat(), true),
            ("a bit of the content", flipped(&whole, 20), false),
            ("a bit of the last byte", zeroed_last_bit(), false),
            ("a bit of the checksum", flipped(&whole, 5), false),
            ("a bit of the length: shorter", flipped(&entry(&Sealed(vec![9; 92])).unwrap(), 0), false),
            ("a bit of the length: longer", flipped(&whole, 1), false),
            ("a bit of the length: beyond every entry", flipped(&whole, 3), false),
            ("a bit of the length, zeros behind", [flipped(&whole, 1), vec![0; 700]].concat(), false),
            ("a bit of a single mark", flipped(&marks(&[1]), 20), false),
            ("an entry follows", [flipped(&whole, 20), whole.clone()].concat(), false),
            ("a length is wrong and an entry follows", [flipped(&whole, 0), whole.clone()].concat(), false),
            ("a length is beyond the end and an entry follows", [flipped(&whole, 1), whole.clone()].concat(), false),
            ("zeros and then an entry", [vec![0; 500], whole.clone()].concat(), false),
            ("an entry is lost and a mark follows", [flipped(&whole, 20), marks(&[1])].concat(), false),
            ("the same, as long as five marks", [flipped(&fifth, 20), marks(&[1])].concat(), false),
            ("a mark is bad and one follows", [flipped(&marks(&[1]), 20), marks(&[2])].concat(), true),
            ("marks are zeros and one follows", [vec![0; 50], marks(&[2])].concat(), true),
            (
                "marks with holes and a torn one",
                [vec![0; 25], marks(&[2]), vec![0; 25], marks(&[3, 4])[..40].to_vec()].concat(),
                true,
            ),
            ("a mark is bad and an entry follows", [flipped(&marks(&[1]), 20), whole.clone()].concat(), false),
        ] {
            assert_eq!(is_torn_end(&rest), torn, "{name}");
        }
    }

    /// An entry whose last byte is zero because a bit of it changed.
    fn zeroed_last_bit() -> Vec<u8> {
        let mut bytes = entry(&Sealed(vec![16; 92])).unwrap();
        *bytes.last_mut().unwrap() = 0;
        bytes
    }

    #[test]
    fn every_changed_bit_of_the_last_frame_is_damage() {
        for content in [vec![9; 92], vec![16; 60], (0..=255).collect()] {
            let whole = entry(&Sealed(content)).unwrap();
            for behind in [0, 1, 4096] {
                for bit in 0..whole.len() * 8 {
                    let mut bytes = [&whole[..], &vec![0; behind]].concat();
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    assert!(!is_torn_end(&bytes), "bit {bit} of {}, {behind} behind", whole.len());
                }
                // The end missing, or zeros, at every byte.
                for length in 0..whole.len() - 1 {
                    let torn = [&whole[..length], &vec![0; behind]].concat();
                    let lost = whole[length..].iter().any(|byte| *byte != 0);
                    assert!(!lost || is_torn_end(&torn), "cut at {length} of {}, {behind} behind", whole.len());
                }
            }
        }
    }

    /// An endless file that records the largest read.
    struct Endless {
        head: Vec<u8>,
        largest: usize,
    }

    impl Read for Endless {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            self.largest = self.largest.max(room.len());
            let known = self.head.len().min(room.len());
            room[..known].copy_from_slice(&self.head[..known]);
            self.head.drain(..known);
            room[known..].fill(0);
            Ok(room.len())
        }
    }

    #[test]
    fn a_length_beyond_the_end_allocates_nothing() {
        for (length, rest, room) in [
            (u32::MAX, 1 << 40, HEAD),
            (u32::MAX, 60, HEAD),
            (MAX_BODY as u32 + 1, 1 << 40, HEAD),
            (MAX_BODY as u32, MAX_BODY as u64, HEAD),
            (53, 60, HEAD),
            (52, 60, 52),
            (MAX_BODY as u32, 1 << 40, MAX_BODY),
        ] {
            let mut file = Endless { head: [&length.to_le_bytes()[..], &[0xff; 5]].concat(), largest: 0 };
            assert!(matches!(read(&mut file, rest), Ok(FrameRead::Bad)), "{length} of {rest}");
            assert_eq!(file.largest, room, "{length} of {rest}");
        }
    }
}

//! Notices a write-ahead log that would lose commits.
//!
//! SQLite takes the first frame whose checksum is wrong for the end of its log and drops everything behind it without a
//! word, also after one changed bit. So the position of the last commit is kept in a file beside the database, written
//! before a commit is acknowledged, and compared at the next start. After a power failure it may be older than the log,
//! never newer: the commit was on disk before.
//!
//! Source of the formats: <https://www.sqlite.org/walformat.html>.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::files::{LockFile, beside, private};

/// The position of a commit in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LogPosition {
    /// Of the log; others after it was begun anew, when the database had everything.
    salts: [u8; 8],
    frames: u32,
    checksum: [u32; 2],
}

/// The file that has the position of the last commit.
pub(super) struct LastCommit {
    file: File,
    lock: Arc<LockFile>,
    failed: bool,
}

/// Where the log is damaged, before the last acknowledged commit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is damaged at byte {at}: {lost} of the {frames} pages that were written to it would be lost, with commits that were \
     acknowledged; restore that file from a copy, or all files of the database from a backup (see Damaged or missing files \
     in docs/operating.md)", .log.display()
)]
pub(super) struct DamagedLog {
    log: PathBuf,
    at: u64,
    frames: u32,
    lost: u32,
}

impl LastCommit {
    /// Opens the file, beside an open database. An empty log is recorded: what was recorded before has come to the database
    /// since.
    pub(super) fn open(lock: &Arc<LockFile>) -> io::Result<Self> {
        let file = private().truncate(false).read(true).write(true).open(beside(lock.database(), END))?;
        let mut last = Self { file, lock: lock.clone(), failed: false };
        if position(lock.index()?)?.frames == 0 {
            last.record();
        }
        Ok(last)
    }

    /// Writes where the log ends, and returns how many frames it has. Does not wait for the disk.
    pub(super) fn record(&mut self) -> Option<u32> {
        let recorded = self.lock.index().and_then(position).and_then(|position| {
            self.file.rewind()?;
            self.file.write_all(&position.to_bytes())?;
            Ok(position.frames)
        });
        if let Err(error) = &recorded
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!(%error, "the position of the last commit cannot be written: damage of the log would not be noticed");
        }
        recorded.ok()
    }
}

/// Compares the log of a database with its last commit. Nothing is changed.
///
/// # Errors
/// Commits that were acknowledged would be lost.
pub(super) fn check(database: &Path) -> io::Result<Result<(), DamagedLog>> {
    let mut found = compare(database)?;
    // A process that has the database open may begin its log anew while it is read. Damage stays as it is.
    for _ in 0..3 {
        let again = compare(database)?;
        if found.is_ok() || again == found {
            break;
        }
        found = again;
    }
    Ok(found)
}

fn compare(database: &Path) -> io::Result<Result<(), DamagedLog>> {
    let recorded = match std::fs::read(beside(database, END)) {
        Ok(bytes) => LogPosition::from_bytes(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        Err(error) => return Err(error),
    };
    let path = beside(database, "-wal");
    let Some(last) = recorded else {
        tracing::warn!(log = %path.display(), "the position of the last commit cannot be read: the log is not checked");
        return Ok(Ok(()));
    };
    if last.frames == 0 {
        return Ok(Ok(()));
    }
    let log = match File::open(&path) {
        Ok(log) if log.metadata()?.len() > 0 => log,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {
            tracing::warn!(
                log = %path.display(),
                pages = last.frames,
                "the log of the database is gone: nothing is lost if another program had the database open since, such as \
                 sqlite3; otherwise the last commits are"
            );
            return Ok(Ok(()));
        }
    };
    let (frames, at) = whole_frames(log, &last)?;
    Ok(match frames {
        Some(frames) if frames < last.frames => {
            Err(DamagedLog { log: path, at, frames: last.frames, lost: last.frames - frames })
        }
        _ => Ok(()),
    })
}

/// Reads the log as SQLite does, up to the position. Returns how many frames are whole, and where the next one begins;
/// `None` if the log was begun anew since.
fn whole_frames(log: File, last: &LogPosition) -> io::Result<(Option<u32>, u64)> {
    let mut log = BufReader::new(log);
    let mut head = [0; HEAD];
    if !fill(&mut log, &mut head)? {
        return Ok((Some(0), 0));
    }
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (magic, page) = (word(0), word(8) as usize);
    let sum = Checksum { big_endian: magic & 1 == 1 };
    let mut checksum = sum.of(&head[..24], [0, 0]);
    let valid = magic & !1 == MAGIC && page.is_power_of_two() && (512..=65_536).contains(&page);
    if !valid || checksum != [word(24), word(28)] {
        return Ok((Some(0), 0));
    }
    if head[16..24] != last.salts {
        return Ok((None, 0));
    }
    let mut frame = vec![0; FRAME_HEAD + page];
    let mut at = HEAD as u64;
    for whole in 0..last.frames {
        if !fill(&mut log, &mut frame)? || frame[8..16] != last.salts {
            return Ok((Some(whole), at));
        }
        checksum = sum.of(&frame[FRAME_HEAD..], sum.of(&frame[..8], checksum));
        if frame[16..24] != [checksum[0].to_be_bytes(), checksum[1].to_be_bytes()].concat() {
            return Ok((Some(whole), at));
        }
        at += frame.len() as u64;
    }
    Ok((Some(last.frames), at))
}

/// Reads until `buffer` is full; false if the file ends before.
fn fill(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The running checksum of the log.
struct Checksum {
    big_endian: bool,
}

impl Checksum {
    fn of(&self, bytes: &[u8], start: [u32; 2]) -> [u32; 2] {
        let (pairs, _) = bytes.as_chunks::<8>();
        pairs.iter().fold(start, |[a, b], &[w0, w1, w2, w3, w4, w5, w6, w7]| {
            let words = [[w0, w1, w2, w3], [w4, w5, w6, w7]];
            let [x, y] =
                words.map(|word| if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) });
            let a = a.wrapping_add(x).wrapping_add(b);
            [a, b.wrapping_add(y).wrapping_add(a)]
        })
    }
}

/// Returns the position of the last commit as the index of the log has it, which is in the byte order of this machine.
fn position(mut index: &File) -> io::Result<LogPosition> {
    let (mut head, mut copy) = ([0; 48], [0; 48]);
    index.seek(SeekFrom::Start(0))?;
    index.read_exact(&mut head)?;
    index.read_exact(&mut copy)?;
    // A writer changes one after the other.
    if head != copy {
        return Err(io::Error::other("another program is writing to the database"));
    }
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(0) != INDEX_VERSION {
        return Err(io::Error::other("the index of the log has an unknown version"));
    }
    let mut salts = [0; 8];
    salts.copy_from_slice(&head[32..40]);
    Ok(LogPosition { salts, frames: word(16), checksum: [word(24), word(28)] })
}

impl LogPosition {
    fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&self.salts);
        for (place, word) in bytes[8..20].chunks_mut(4).zip([self.frames, self.checksum[0], self.checksum[1]]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut salts = [0; 8];
        salts.copy_from_slice(&bytes[..8]);
        let whole = crc32fast::hash(&bytes[..20]) == word(20);
        whole.then_some(Self { salts, frames: word(8), checksum: [word(12), word(16)] })
    }
}

/// The end of the file's name.
const END: &str = "-last";
const SIZE: usize = 24;
const HEAD: usize = 32;
const FRAME_HEAD: usize = 24;
const MAGIC: u32 = 0x377f_0682;
const INDEX_VERSION: u32 = 3_007_000;

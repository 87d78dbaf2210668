//! The files of a history, one for each hour: `TSK1 | owner 16`, then frames as in the journal, each an entry. What is sealed
//! follows the entry's number (8 bytes, little-endian).

use std::{
    fs::{self, File},
    io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    disk,
    journal::frame::{self, FrameBody, FrameRead},
    keyring::{Field, Keyring},
    model::{Id, Sealed, TokenKey},
};

/// A place in a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct HistoryPlace {
    /// The hour of the file, since the Unix epoch.
    pub(crate) hour: u64,
    /// The offset in it.
    pub(crate) at: u64,
}

/// A copy of a change that the store had.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeptEntry {
    pub(crate) key: TokenKey,
    pub(crate) payload: Vec<u8>,
}

impl KeptEntry {
    /// The plaintext is the key as JSON, which has no line break, a line break, and the payload.
    pub(super) fn seal(&self, keyring: &Keyring, owner: Id) -> Sealed {
        let mut plain = serde_json::to_vec(&self.key).expect("strings serialize as JSON");
        plain.push(b'\n');
        plain.extend_from_slice(&self.payload);
        keyring.seal(&bound_to(owner), Field::Journal, &plain)
    }

    pub(super) fn open(keyring: &Keyring, owner: Id, sealed: &Sealed) -> Option<Self> {
        let plain = keyring.open(&bound_to(owner), Field::Journal, sealed).ok()?;
        let end = plain.iter().position(|byte| *byte == b'\n')?;
        Some(Self { key: serde_json::from_slice(&plain[..end]).ok()?, payload: plain[end + 1..].to_vec() })
    }
}

/// Keeps an entry apart from those of other histories and of journals.
fn bound_to(owner: Id) -> TokenKey {
    TokenKey::at("history").user(owner.to_string())
}

/// The file of one hour.
pub(super) struct HistorySegment {
    pub(super) hour: u64,
    path: PathBuf,
    owner: Id,
}

impl HistorySegment {
    pub(super) fn at(directory: &Path, owner: Id, hour: u64) -> Self {
        Self { hour, path: directory.join(format!("{owner}.{hour:08}.{EXTENSION}")), owner }
    }

    /// Opens the file to append to it; creates it first if it is not there. Returns it with its length.
    pub(super) fn append(&self) -> io::Result<(File, u64)> {
        let mut options = disk::unlinked();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.path)?;
        if file.metadata()?.len() == 0 {
            file.write_all(&header(self.owner))?;
        }
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// Reads the entries from `at` on; skips what is damaged.
    fn each(&self, at: u64, take: &mut impl FnMut(HistoryPlace, u64, &Sealed)) -> io::Result<()> {
        let mut file = disk::unlinked().read(true).open(&self.path)?;
        let end = file.metadata()?.len();
        let mut found = Vec::new();
        (&file).take(HEADER).read_to_end(&mut found)?;
        if found != header(self.owner) {
            tracing::warn!(file = %self.path.display(), "this is no history of its owner: it is left out");
            return Ok(());
        }
        let mut at = at.max(HEADER);
        file.seek(SeekFrom::Start(at))?;
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        while at < end {
            let (body, size) = match frame::read(&mut reader, end - at)? {
                FrameRead::Frame { body, size } => (Some(body), size),
                FrameRead::Bad | FrameRead::Newer => (None, self.skip_damage(&mut reader, at)?),
            };
            if let Some(FrameBody::Entry(Sealed(bytes))) = body
                && let Some((number, sealed)) = bytes.split_first_chunk()
            {
                take(HistoryPlace { hour: self.hour, at }, u64::from_le_bytes(*number), &Sealed(sealed.to_vec()));
            }
            at += size;
        }
        Ok(())
    }

    /// Returns the distance to the next whole frame, and moves the reader there. Without one within [`SEARCHED`] the rest of the
    /// file is left out; usually it is the half-written end of a killed machine.
    fn skip_damage(&self, reader: &mut BufReader<File>, at: u64) -> io::Result<u64> {
        let mut rest = Vec::new();
        reader.seek(SeekFrom::Start(at))?;
        reader.by_ref().take(SEARCHED).read_to_end(&mut rest)?;
        let behind = rest.get(1..).unwrap_or_default();
        let skipped = match frame::next_whole(behind) {
            Some((FrameRead::Frame { size, .. }, end)) => 1 + end as u64 - size,
            _ => u64::MAX - at,
        };
        tracing::warn!(file = %self.path.display(), at, "a history is damaged: what can be read is used");
        reader.seek(SeekFrom::Start(at.saturating_add(skipped).min(i64::MAX as u64)))?;
        Ok(skipped)
    }

    /// Reads the entry at this offset.
    pub(super) fn entry(&self, at: u64) -> Option<Sealed> {
        let mut file = disk::unlinked().read(true).open(&self.path).ok()?;
        let end = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(at)).ok()?;
        match frame::read(&mut file, end.checked_sub(at)?).ok()? {
            FrameRead::Frame { body: FrameBody::Entry(Sealed(bytes)), .. } => Some(Sealed(bytes.get(8..)?.to_vec())),
            _ => None,
        }
    }
}

/// The frame of an entry.
pub(super) fn frame(number: u64, sealed: &Sealed) -> io::Result<Vec<u8>> {
    frame::entry(&Sealed([&number.to_le_bytes()[..], &sealed.0].concat()))
}

/// Returns the files of an owner, the oldest first.
pub(super) fn all(directory: &Path, owner: Id) -> Vec<HistorySegment> {
    let names = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let hour = |name: &str| {
        let (stem, extension) = name.rsplit_once('.')?;
        let (of, hour) = stem.split_once('.')?;
        (extension == EXTENSION && of.parse::<Id>().ok()? == owner).then(|| hour.parse::<u64>().ok()).flatten()
    };
    let mut hours: Vec<_> = names.filter_map(|file| hour(file.file_name().to_str()?)).collect();
    hours.sort_unstable();
    hours.into_iter().map(|hour| HistorySegment::at(directory, owner, hour)).collect()
}

/// Reads the entries of an owner from this place on, in their order. What cannot be read is left out and logged.
pub(super) fn each(directory: &Path, owner: Id, from: HistoryPlace, mut take: impl FnMut(HistoryPlace, u64, &Sealed)) {
    for segment in all(directory, owner).into_iter().filter(|segment| segment.hour >= from.hour) {
        let at = if segment.hour == from.hour { from.at } else { 0 };
        if let Err(error) = segment.each(at, &mut take) {
            tracing::warn!(file = %segment.path.display(), %error, "a history cannot be read: it is left out");
        }
    }
}

fn header(owner: Id) -> Vec<u8> {
    [&MAGIC[..], &owner.0].concat()
}

const EXTENSION: &str = "kept";
const MAGIC: &[u8; 4] = b"TSK1";
const HEADER: u64 = 20;
/// How far the next whole frame is searched for behind damage.
const SEARCHED: u64 = 2 * frame::MAX_TORN;

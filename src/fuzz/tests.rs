//! Runs the targets with the corpus, with mutations of it, and with arbitrary bytes.

use proptest::{prelude::*, sample::Index};

use super::*;

/// Returns every file of a target's corpus. The published package has no corpus.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("fuzz/corpus").join(target);
    if !folder.exists() && root.join("Cargo.toml.orig").exists() {
        return vec![Vec::new()];
    }
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "the corpus of {target} is missing");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A mutation of a file of the corpus.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    SetNumber(Index, u32),
    CutAt(Index),
    Append(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Edit::Flip(at, 1 << bit)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 1usize..40).prop_map(|(at, count)| Edit::Remove(at, count)),
        (any::<Index>(), prop::sample::select(vec![0, 1, 17, 25, u32::MAX])).prop_map(|(at, n)| Edit::SetNumber(at, n)),
        any::<Index>().prop_map(Edit::CutAt),
        any::<Index>().prop_map(Edit::Append),
    ]
}

/// Generates mutated files of the corpus, and arbitrary bytes.
fn bytes(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let files = corpus(target);
    let edited = (any::<Index>(), prop::collection::vec(edit(), 1..6)).prop_map(move |(which, edits)| {
        edits.iter().fold(files[which.index(files.len())].clone(), |bytes, edit| edit.of(bytes, &files))
    });
    prop_oneof![3 => edited, 1 => prop::collection::vec(any::<u8>(), 0..300)]
}

impl Edit {
    fn of(&self, mut bytes: Vec<u8>, files: &[Vec<u8>]) -> Vec<u8> {
        let at = |place: &Index| place.index(bytes.len() + 1);
        match self {
            Self::Flip(place, bits) => {
                let at = at(place);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bits);
            }
            Self::Insert(place, more) => drop(bytes.splice(at(place)..at(place), more.iter().copied())),
            Self::Remove(place, count) => {
                let (from, to) = (at(place), (at(place) + count).min(bytes.len()));
                bytes.drain(from..to);
            }
            Self::SetNumber(place, number) => {
                let at = at(place);
                bytes.iter_mut().skip(at).zip(number.to_le_bytes()).for_each(|(byte, new)| *byte = new);
            }
            Self::CutAt(place) => bytes.truncate(at(place)),
            Self::Append(which) => bytes.extend_from_slice(&files[which.index(files.len())]),
        }
        bytes
    }
}

#[test]
fn the_targets_accept_the_stored_corpus() {
    let directory = tempfile::tempdir().unwrap();
    corpus("decode").iter().for_each(|data| decode(data));
    corpus("envelope").iter().for_each(|data| envelope(data));
    corpus("journal").iter().for_each(|data| journal(directory.path(), data));
}

#[test]
fn files_of_the_corpus_reach_the_case_in_their_name() {
    let pending = |bytes: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(format!("{OWNER}.journal")), bytes).unwrap();
        let opened = Journal::open(directory.path(), &keyring());
        opened.map(|journal| (journal.pending(), journal.damaged().len())).map_err(|error| error.to_string())
    };
    let file = |name: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name));
    let (Ok(two), Ok(damaged)) = (file("journal/two-entries-and-a-mark"), file("journal/damaged-in-the-middle")) else {
        return assert_eq!(corpus("journal").len(), 1);
    };
    assert_eq!(pending(&two), Ok((1, 0)));
    assert_eq!(pending(&damaged).map(|(_, damaged)| damaged), Ok(1));
    assert!(pending(&repaired(&damaged)).unwrap_err().contains("does not open"));
    assert_eq!(pending(&entry_of(&file("journal/record.json").unwrap())), Ok((1, 0)));
    assert!(pending(&entry_of(&file("journal/record-of-nonsense.json").unwrap())).unwrap_err().contains("newer"));
    assert!(keyring().open(&alice(), Field::Document, &Sealed(file("envelope/document").unwrap())).is_ok());
    assert!(Keyring::from_json(&file("envelope/key-file").unwrap()).is_ok());
}

#[test]
fn a_shown_secret_is_detected() {
    assert_no_secret(&"nothing", "");
    let caught = |broken: fn()| std::panic::catch_unwind(broken).is_err();
    assert!(caught(|| assert_no_secret(&"ts-test-secret-a", "")));
    assert!(caught(|| assert_no_secret(&"", "key dHMtdGVzdC1zZWNyZXQtYQ==")));
    assert!(caught(|| assert_no_secret(&"x".repeat(5_000), "")));
}

proptest! {
    #[test]
    fn any_response_is_decoded_safely(data in bytes("decode")) {
        decode(&data);
    }

    #[test]
    fn any_envelope_and_key_file_is_read_safely(data in bytes("envelope")) {
        envelope(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_journal_is_read_safely(data in bytes("journal")) {
        let directory = tempfile::tempdir().unwrap();
        journal(directory.path(), &data);
    }
}

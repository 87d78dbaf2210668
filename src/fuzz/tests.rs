//! The corpus, mutations of it, and arbitrary bytes.

use proptest::{prelude::*, sample::Index};

use super::*;

/// Every file of a target's corpus. The published package has none.
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

/// What becomes of a file of the corpus.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Number(Index, u32),
    CutAt(Index),
    Append(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Edit::Flip(at, 1 << bit)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 1usize..40).prop_map(|(at, count)| Edit::Remove(at, count)),
        (any::<Index>(), prop::sample::select(vec![0, 1, 17, 25, u32::MAX])).prop_map(|(at, n)| Edit::Number(at, n)),
        any::<Index>().prop_map(Edit::CutAt),
        any::<Index>().prop_map(Edit::Append),
    ]
}

/// Something like a file of the corpus, or nothing like it.
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
            Self::Number(place, number) => {
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
fn the_stored_corpus_breaks_nothing() {
    let directory = tempfile::tempdir().unwrap();
    corpus("decode").iter().for_each(|data| decode(data));
    corpus("envelope").iter().for_each(|data| envelope(data));
    corpus("journal").iter().for_each(|data| journal(directory.path(), data));
}

#[test]
fn the_corpus_reaches_what_it_is_named_after() {
    let directory = tempfile::tempdir().unwrap();
    let pending = |bytes: &[u8]| {
        fs::write(directory.path().join(format!("{OWNER}.journal")), bytes).unwrap();
        Journal::open(directory.path(), &keyring()).map(|journal| journal.pending()).map_err(|error| error.to_string())
    };
    let file = |name: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name));
    let (Ok(two), Ok(damaged)) = (file("journal/two-entries-and-a-mark"), file("journal/damaged-in-the-middle")) else {
        return assert_eq!(corpus("journal").len(), 1);
    };
    assert_eq!(pending(&two), Ok(1));
    assert!(pending(&damaged).unwrap_err().contains("is damaged at byte 20"));
    assert!(pending(&repaired(&damaged)).unwrap_err().contains("does not open"));
    assert_eq!(pending(&entry_of(&file("journal/record.json").unwrap())), Ok(1));
    assert!(pending(&entry_of(&file("journal/record-of-nonsense.json").unwrap())).unwrap_err().contains("newer"));
    assert!(keyring().open(&alice(), Field::Document, &Sealed(file("envelope/document").unwrap())).is_ok());
    assert!(Keyring::from_json(&file("envelope/key-file").unwrap()).is_ok());
}

#[test]
fn a_broken_promise_is_noticed() {
    silent(&"nothing", "");
    let caught = |broken: fn()| std::panic::catch_unwind(broken).is_err();
    assert!(caught(|| silent(&"ts-test-secret-a", "")));
    assert!(caught(|| silent(&"", "key dHMtdGVzdC1zZWNyZXQtYQ==")));
    assert!(caught(|| silent(&"x".repeat(5_000), "")));
}

proptest! {
    #[test]
    fn no_answer_breaks_anything(data in bytes("decode")) {
        decode(&data);
    }

    #[test]
    fn nothing_sealed_and_no_key_file_breaks_anything(data in bytes("envelope")) {
        envelope(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_journal_breaks_anything(data in bytes("journal")) {
        let directory = tempfile::tempdir().unwrap();
        journal(directory.path(), &data);
    }
}

use std::{collections::BTreeSet, fs, path::PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn keyring() -> Keyring {
    Keyring::fixed(&[("0a0b0c0d", 0x11)], 0x22)
}

fn open(directory: &TempDir) -> Journal {
    try_open(directory).unwrap_or_else(|error| panic!("{error}"))
}

fn try_open(directory: &TempDir) -> Result<Journal, JournalError> {
    Journal::open(directory.path(), &keyring())
}

fn path_of(directory: &TempDir, owner: Id) -> PathBuf {
    directory.path().join(format!("{owner}.journal"))
}

fn entry(user: &str, attempt: u8) -> JournalEntry {
    let payload = format!("ts-test-secret-{user}-{attempt}").into_bytes();
    JournalEntry { key: TokenKey::at("github").user(user), attempt: Id([attempt; 16]), payload }
}

fn attempts(entries: &[JournalEntry]) -> Vec<u8> {
    entries.iter().map(|entry| entry.attempt.0[0]).collect()
}

#[test]
fn an_entry_is_pending_until_marked_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let alice = TokenKey::at("github").user("alice");
    let journal = open(&directory);
    let owner = journal.owner();
    for entry in [entry("alice", 1), entry("bob", 2), entry("alice", 3)] {
        journal.append(entry).unwrap();
    }
    assert_eq!(journal.pending_for(&alice), [entry("alice", 1), entry("alice", 3)]);
    journal.mark(Id([1; 16])).unwrap();
    journal.mark(Id([1; 16])).unwrap();
    journal.mark(Id([99; 16])).unwrap();
    assert_eq!((journal.pending(), attempts(&journal.pending_for(&alice))), (2, vec![3]));
    drop(journal);

    let journal = open(&directory);
    assert_eq!(journal.owner(), owner);
    assert!(journal.owns(&owner) && !journal.owns(&Id([1; 16])) && journal.locked_others().is_empty());
    assert_eq!(journal.pending_for(&alice), [entry("alice", 3)]);
    let keys: BTreeSet<_> = journal.pending_keys().into_iter().collect();
    assert_eq!(keys, BTreeSet::from([alice.clone(), TokenKey::at("github").user("bob")]));
    journal.mark(Id([2; 16])).unwrap();
    journal.mark(Id([3; 16])).unwrap();
    assert_eq!((journal.pending(), journal.pending_keys().len()), (0, 0));
    drop(journal);
    assert_eq!(open(&directory).pending(), 0);
}

#[test]
fn an_attempt_appended_twice_is_pending_once() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    journal.append(entry("alice", 1)).unwrap();
    journal.append(JournalEntry { payload: b"ts-test-secret-later".to_vec(), ..entry("alice", 1) }).unwrap();
    for journal in [&journal, &{ open_copy(&directory, &journal) }] {
        assert_eq!(journal.pending(), 1);
        assert_eq!(journal.pending_for(&TokenKey::at("github").user("alice"))[0].payload, b"ts-test-secret-later");
    }
    journal.mark(Id([1; 16])).unwrap();
    assert_eq!(open_copy(&directory, &journal).pending(), 0);
}

/// Opens a copy of the journal, as another machine would after a power failure of this one.
fn open_copy(directory: &TempDir, journal: &Journal) -> Journal {
    let copy = tempfile::tempdir().unwrap();
    fs::copy(path_of(directory, journal.owner()), path_of(&copy, journal.owner())).unwrap();
    open(&copy)
}

#[test]
fn nothing_secret_is_readable_in_file_or_debug() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    journal.append(entry("alice", 1)).unwrap();
    let bytes = fs::read(path_of(&directory, journal.owner())).unwrap();
    assert!(bytes.starts_with(b"TSJ1"));
    assert!(!bytes.windows(5).any(|window| window == b"alice" || window == b"ts-te"));
    assert!(!format!("{journal:?} {:?}", entry("alice", 1)).contains("ts-test"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path_of(&directory, journal.owner())), 0o600);
        let nested = directory.path().join("a/b");
        Journal::open(&nested, &keyring()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(mode(nested), 0o700);
    }
}

#[test]
fn each_living_process_has_its_own_journal_and_takes_over_those_of_dead_ones() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(&directory);
    first.append(entry("alice", 1)).unwrap();
    let second = open(&directory);
    assert_ne!(first.owner(), second.owner());
    assert!(!second.owns(&first.owner()) && second.pending() == 0);
    second.append(entry("bob", 2)).unwrap();
    let owners = BTreeSet::from([first.owner(), second.owner()]);
    drop(first);
    drop(second);

    let third = open(&directory);
    let [other] = third.locked_others() else { panic!("{third:?}") };
    assert_eq!(BTreeSet::from([third.owner(), *other]), owners);
    assert!(owners.iter().all(|owner| third.owns(owner)));
    assert_eq!(third.pending(), 2);
    // A mark goes into the file that has the entry.
    third.mark(Id([1; 16])).unwrap();
    third.mark(Id([2; 16])).unwrap();
    let fourth = open(&directory);
    assert!(!owners.contains(&fourth.owner()) && fourth.locked_others().is_empty());
    drop((third, fourth));
    let fifth = open(&directory);
    assert_eq!((fifth.pending(), fifth.locked_others().len()), (0, 2));
}

#[test]
fn an_end_torn_at_any_byte_is_truncated_and_earlier_frames_stay() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    let path = path_of(&directory, journal.owner());
    journal.append(entry("alice", 1)).unwrap();
    let before = fs::read(&path).unwrap();
    journal.append(entry("alice", 2)).unwrap();
    let after_entry = fs::read(&path).unwrap();
    journal.mark(Id([1; 16])).unwrap();
    let after_mark = fs::read(&path).unwrap();
    drop(journal);
    let expect = |bytes: &[u8], expected: &[u8], name: &str| {
        fs::write(&path, bytes).unwrap();
        let alice = TokenKey::at("github").user("alice");
        let journal = open(&directory);
        assert_eq!(attempts(&journal.pending_for(&alice)), expected, "{name}");
        // It can be appended to, and read again afterwards.
        journal.append(entry("alice", 7)).unwrap();
        drop(journal);
        let expected: Vec<u8> = expected.iter().copied().chain([7]).collect();
        assert_eq!(attempts(&open(&directory).pending_for(&alice)), expected, "{name}, appended");
    };
    for length in before.len()..after_entry.len() {
        expect(&after_entry[..length], &[1], &format!("entry cut at {length}"));
        let zeros = vec![0; after_entry.len() - length + 600];
        if length % 7 != 0 {
            continue;
        }
        if after_entry[length..].iter().any(|byte| *byte != 0) {
            expect(&[&after_entry[..length], &zeros].concat(), &[1], &format!("entry zeroed from {length}"));
        }
    }
    for length in after_entry.len()..after_mark.len() {
        expect(&after_mark[..length], &[1, 2], &format!("mark cut at {length}"));
    }
    expect(&[&after_mark[..], &[0; 4096]].concat(), &[2], "zeros at the end");
    // The header never reached the disk.
    for length in 0..20 {
        expect(&before[..length], &[], &format!("header cut at {length}"));
    }
    expect(&[0; 12], &[], "header of zeros");
}

/// Writes `bytes` as the owner's journal and opens it; a damaged one must be set aside unchanged, with an owner that does
/// not count as dead. Returns the pending attempts, and whether it was damaged.
fn opened_with(owner: Id, bytes: &[u8]) -> (Vec<u8>, bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = path_of(&directory, owner);
    fs::write(&path, bytes).unwrap();
    let journal = open(&directory);
    let aside = journal.damaged();
    let alice = TokenKey::at("github").user("alice");
    let pending = attempts(&journal.pending_for(&alice));
    if let [aside] = &aside[..] {
        assert_eq!(fs::read(aside).unwrap(), bytes, "its bytes are kept");
        assert!(!journal.owns(&owner) && !path.exists());
        drop(journal);
        let again = open(&directory);
        assert_eq!(attempts(&again.pending_for(&alice)), pending, "what was readable is in the new journal");
        assert!(!again.owns(&owner));
    } else {
        assert!(journal.owns(&owner) && aside.is_empty());
    }
    (pending, !aside.is_empty())
}

#[test]
fn a_damaged_journal_is_set_aside_and_what_is_readable_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    let (owner, path) = (journal.owner(), path_of(&directory, journal.owner()));
    journal.append(entry("alice", 1)).unwrap();
    let first = fs::read(&path).unwrap().len();
    journal.append(entry("alice", 2)).unwrap();
    journal.append(entry("alice", 3)).unwrap();
    journal.mark(Id([2; 16])).unwrap();
    drop(journal);
    let good = fs::read(&path).unwrap();
    assert_eq!(opened_with(owner, &good), (vec![1, 3], false));
    for bit in ((20 * 8)..(good.len() * 8)).step_by(11) {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (pending, damaged) = opened_with(owner, &bytes);
        let expected: &[u8] = if bit < first * 8 {
            &[3]
        } else if bit >= (good.len() - 25) * 8 {
            // Only the mark is lost: its entry is committed once more.
            &[1, 2, 3]
        } else if pending == [1] {
            &[1]
        } else {
            &[1, 3]
        };
        assert!(damaged && pending == expected, "bit {bit}: {pending:?}");
    }
}

#[test]
fn a_changed_header_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    let path = path_of(&directory, journal.owner());
    journal.append(entry("alice", 1)).unwrap();
    drop(journal);
    let good = fs::read(&path).unwrap();
    for bit in 0..20 * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        let error = try_open(&directory).unwrap_err();
        let newer = bit / 8 == 3;
        assert!(matches!(error, JournalError::Newer { at: 0, .. }) == newer, "bit {bit}: {error}");
        assert!(newer || matches!(error, JournalError::NotAJournal { .. }), "bit {bit}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(open(&directory).pending(), 1);
}

#[test]
fn a_frame_of_an_unknown_kind_is_not_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    let path = path_of(&directory, journal.owner());
    drop(journal);
    for body in [&[3, 1, 2][..], &[2, 1, 2]] {
        let mut bytes = fs::read(&path).unwrap()[..20].to_vec();
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        bytes.extend_from_slice(body);
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(try_open(&directory).unwrap_err(), JournalError::Newer { at: 20, .. }));
    }
}

#[test]
fn a_renamed_or_copied_journal_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let owner = open(&directory).owner();
    let path = path_of(&directory, owner);
    for name in ["00112233445566778899aabbccddeeff.journal", "copy.journal"] {
        let copy = directory.path().join(name);
        fs::copy(&path, &copy).unwrap();
        assert!(matches!(try_open(&directory).unwrap_err(), JournalError::NotAJournal { .. }), "{name}");
        fs::remove_file(copy).unwrap();
    }
    fs::write(directory.path().join("notes.txt"), "not ours").unwrap();
    assert_eq!(open(&directory).owner(), owner);
}

#[test]
fn an_entry_opens_only_in_its_own_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (open(&directory), open(&directory));
    let (from, to) = (path_of(&directory, first.owner()), path_of(&directory, second.owner()));
    first.append(entry("alice", 1)).unwrap();
    drop((first, second));
    let moved = [&fs::read(&to).unwrap()[..], &fs::read(&from).unwrap()[20..]].concat();
    fs::write(&to, moved).unwrap();
    assert!(matches!(try_open(&directory).unwrap_err(), JournalError::DoesNotOpen { at: 20, .. }));
}

#[test]
fn an_error_names_the_key_that_the_keyring_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    let path = path_of(&directory, journal.owner());
    journal.append(entry("alice", 1)).unwrap();
    drop(journal);
    let error = |keyring| crate::Error::from(Journal::open(directory.path(), &keyring).unwrap_err()).to_string();
    let lacks = error(Keyring::fixed(&[("01020304", 1)], 0x22));
    let expected = format!(
        "cannot open the entry at byte 20 of journal {}: it is sealed with key 0a0b0c0d, which is not in the key file; \
         start with the key file it was sealed with",
        path.display()
    );
    assert_eq!(lacks, expected);
    let wrong = error(Keyring::fixed(&[("0a0b0c0d", 1)], 0x22));
    assert!(wrong.contains("does not open with its key"), "{wrong}");
    assert_eq!(open(&directory).pending(), 1);
}

#[test]
fn a_key_may_be_gone_whose_entries_are_stored() {
    let directory = tempfile::tempdir().unwrap();
    let old = Keyring::fixed(&[("0a0b0c0d", 1)], 0x22);
    let both = Keyring::fixed(&[("01020304", 2), ("0a0b0c0d", 1)], 0x22);
    let new = Keyring::fixed(&[("01020304", 2)], 0x22);
    let open = |keyring| Journal::open(directory.path(), keyring);
    let journal = open(&old).unwrap_or_else(|error| panic!("{error}"));
    let waiting = |journal: &Journal| {
        let mut waiting: Vec<_> =
            journal.waiting().unwrap().into_iter().map(|entry| entry.sealed_by.to_string()).collect();
        waiting.sort();
        waiting
    };
    for attempt in 1..=3 {
        journal.append(entry("alice", attempt)).unwrap();
    }
    // Another process has a journal of its own in the directory.
    let other = open(&both).unwrap_or_else(|error| panic!("{error}"));
    other.append(entry("bob", 4)).unwrap();
    for journal in [&journal, &other] {
        journal.mark(Id([1; 16])).unwrap();
    }
    journal.mark(Id([2; 16])).unwrap();
    assert_eq!(waiting(&other), ["01020304", "0a0b0c0d"]);
    drop((journal, other));
    let error = open(&new).unwrap_err();
    assert!(matches!(error, JournalError::DoesNotOpen { at: 20, .. }), "one of them is not stored: {error}");

    let journal = open(&both).unwrap_or_else(|error| panic!("{error}"));
    journal.mark(Id([3; 16])).unwrap();
    drop(journal);
    let journal = open(&new).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((journal.pending(), waiting(&journal)), (1, vec!["01020304".to_owned(); 1]));
    assert_eq!(journal.pending_for(&TokenKey::at("github").user("bob")).len(), 1);
}

#[test]
fn a_failed_append_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    let path = path_of(&directory, journal.owner());
    journal.append(entry("alice", 1)).unwrap();
    let before = fs::read(&path).unwrap();
    journal.fail_appends(true);
    journal.append(entry("alice", 2)).unwrap_err();
    assert_eq!((journal.pending(), fs::read(&path).unwrap()), (1, before));
    // The store has the response all the same, and the entry is marked again after a restart.
    journal.mark(Id([1; 16])).unwrap_err();
    assert_eq!(journal.pending(), 0);
    journal.fail_appends(false);
    journal.append(entry("alice", 3)).unwrap();
    let too_large = JournalEntry { payload: vec![0; 13 * 1024 * 1024], ..entry("alice", 4) };
    assert_eq!(journal.append(too_large).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    drop(journal);
    assert_eq!(attempts(&open(&directory).pending_for(&TokenKey::at("github").user("alice"))), [1, 3]);
}

#[test]
fn a_large_journal_is_emptied_when_nothing_is_pending() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(&directory);
    let path = path_of(&directory, journal.owner());
    let length = || fs::metadata(&path).unwrap().len();
    journal.append(JournalEntry { payload: vec![7; 1024 * 1024], ..entry("alice", 1) }).unwrap();
    journal.append(entry("bob", 2)).unwrap();
    journal.mark(Id([1; 16])).unwrap();
    assert!(length() > 1024 * 1024);
    journal.mark(Id([2; 16])).unwrap();
    assert_eq!(length(), 20);
    journal.append(entry("carol", 3)).unwrap();
    drop(journal);
    let journal = open(&directory);
    assert_eq!((journal.pending(), journal.pending_for(&entry("carol", 3).key)), (1, vec![entry("carol", 3)]));
}

#[test]
fn the_format_is_frozen() {
    // Every version must read what an earlier one left behind: here an entry of alice, one of bob, alice's mark.
    let frozen = "54534a3133333333333333333333333333333333a80000003e5e8d5901010a0b0c0d07070707070707070707070714e1\
        03bd357ea4f6bdb91b8008445f549351cd692f28c4b435de5ad21db845f17ae723cfd6cc9808d9b670a59d46cf93ed68\
        bcd14b43551fc9f992e47c752a5db8883a044cb911a5eb45b79eb9065b29db9533dd33ed2e51643d4facce3170212ea0\
        8262d1ddb2ced476b646dc9d3e428bdd50645921eb21bb5f3575d203a75d1d934a41a20a405fbecc9eedcb1a864ec99c\
        f5a8ab10aa000000f66447f301010a0b0c0d080808080808080808080808cbd7e99b3cc4effe6cc51a24453684364e00\
        98fe18a018674a3ed525776350f8b81817c172e4948dc3b99a5a0ba061dd9c7a6b6765fff46989859197a5442c9fb91f\
        33ea07083a12fa796e14aa91364c3e9fc32e70709661467b567ba2037929f8bc62771c43e139bf71a312d4d94cf98a43\
        fbd13521c208002975639862cf30c380894506579b63b87963760aa49831240ff552b3a8a1f0110000009802c8a30201\
        010101010101010101010101010101";
    let bytes: Vec<u8> =
        (0..frozen.len()).step_by(2).map(|at| u8::from_str_radix(&frozen[at..at + 2], 16).unwrap()).collect();
    let directory = tempfile::tempdir().unwrap();
    fs::write(path_of(&directory, Id([0x33; 16])), bytes).unwrap();
    let journal = open(&directory);
    assert_eq!(journal.owner(), Id([0x33; 16]));
    assert_eq!(journal.pending(), 1);
    assert_eq!(
        journal.pending_for(&TokenKey::at("github").user("bob").account("work"))[0].payload,
        b"ts-test-secret-b"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn entries_survive_restarts_in_any_order_of_operations(
        steps in proptest::collection::vec((0u8..4, 0u8..6), 0..24),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = open(&directory);
        let mut expected = BTreeSet::new();
        for (step, attempt) in steps {
            match step {
                0 => {
                    journal.append(entry("alice", attempt)).unwrap();
                    expected.insert(attempt);
                }
                1 => {
                    journal.mark(Id([attempt; 16])).unwrap();
                    expected.remove(&attempt);
                }
                2 => {
                    journal.fail_appends(true);
                    journal.append(entry("bob", attempt)).unwrap_err();
                    journal.fail_appends(false);
                }
                _ => {
                    drop(journal);
                    journal = open(&directory);
                }
            }
            let alice = TokenKey::at("github").user("alice");
            let found: BTreeSet<u8> = attempts(&journal.pending_for(&alice)).into_iter().collect();
            // A failed append may remove marks that were not on disk yet; a repeated commit is harmless.
            prop_assert!(expected.is_subset(&found), "{:?} {:?}", expected, found);
            prop_assert_eq!(found.len(), journal.pending());
            expected = found;
        }
    }
}

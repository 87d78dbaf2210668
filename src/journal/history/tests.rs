use std::{fs, time::SystemTime};

use super::*;
use crate::clock::ManualClock;

struct Folder {
    folder: tempfile::TempDir,
    keyring: Keyring,
    manual: ManualClock,
    owner: Id,
}

impl Folder {
    fn new() -> Self {
        let manual = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let (folder, keyring) = (tempfile::tempdir().unwrap(), Keyring::generate());
        Self { folder, keyring, manual, owner: Id([7; 16]) }
    }

    fn open(&self) -> History {
        let clock = Clock::manual(&self.manual);
        History::open(self.folder.path(), self.owner, &self.keyring, &clock, Duration::from_secs(48 * 3_600))
    }

    async fn keep(&self, history: &History, users: &[&str]) {
        for user in users {
            let payload = format!("{{\"of\":\"{user}\"}}").into_bytes();
            history.keep(&TokenKey::at("idp").user(*user), move || payload);
        }
        history.written().await;
    }

    /// The numbers and users of the entries.
    fn entries(&self, history: &History) -> Vec<(u64, Option<String>)> {
        let mut found = Vec::new();
        history.read(self.owner, 0, HistoryPlace::default(), |number, _, entry| {
            found.push((number, entry.map(|entry| entry.key.user().to_owned())));
        });
        found
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "kept"));
        files.sort();
        files
    }
}

fn known(entries: &[(u64, &str)]) -> Vec<(u64, Option<String>)> {
    entries.iter().map(|(number, user)| (*number, Some((*user).to_owned()))).collect()
}

#[tokio::test]
async fn entries_are_numbered_over_restarts_and_read_in_their_order() {
    let folder = Folder::new();
    let history = folder.open();
    folder.keep(&history, &["alice", "bob"]).await;
    folder.manual.advance(Duration::from_secs(3_600));
    folder.keep(&history, &["carol"]).await;
    let place = history.tip().place;
    drop(history);
    let history = folder.open();
    folder.keep(&history, &["dave"]).await;
    assert_eq!(folder.entries(&history), known(&[(1, "alice"), (2, "bob"), (3, "carol"), (4, "dave")]));
    assert_eq!(history.tip().number, 4);
    let mut behind = Vec::new();
    history.read(folder.owner, 0, place, |number, at, _| behind.push((number, at)));
    assert_eq!(behind.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [4], "it began anew behind the third");
    let entry = history.entry(folder.owner, behind[0].1).unwrap();
    assert_eq!((entry.key.user(), &entry.payload[..]), ("dave", &b"{\"of\":\"dave\"}"[..]));
}

#[tokio::test]
async fn old_files_are_deleted_and_only_the_owner_can_read_them() {
    let folder = Folder::new();
    let history = folder.open();
    for user in ["alice", "bob", "carol"] {
        folder.keep(&history, &[user]).await;
        folder.manual.advance(Duration::from_secs(24 * 3_600));
    }
    assert_eq!(folder.entries(&history), known(&[(1, "alice"), (2, "bob"), (3, "carol")]));
    folder.keep(&history, &["dave"]).await;
    assert_eq!(folder.entries(&history), known(&[(2, "bob"), (3, "carol"), (4, "dave")]));
    #[cfg(unix)]
    for file in folder.files() {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn damage_costs_the_damaged_entries_alone() {
    let folder = Folder::new();
    let history = folder.open();
    folder.keep(&history, &["alice", "bobby", "carol"]).await;
    let whole = fs::read(&folder.files()[0]).unwrap();
    let entry = (whole.len() - 20) / 3;
    for (what, bytes, left) in [
        ("a torn end", whole[..whole.len() - 5].to_vec(), known(&[(1, "alice"), (2, "bobby")])),
        ("zeros at the end", [&whole[..], &[0; 500]].concat(), known(&[(1, "alice"), (2, "bobby"), (3, "carol")])),
        ("a changed bit", flipped(&whole, 20 + entry + entry / 2), known(&[(1, "alice"), (3, "carol")])),
        ("a changed length", flipped(&whole, 20 + entry), known(&[(1, "alice"), (3, "carol")])),
        ("another header", flipped(&whole, 10), Vec::new()),
    ] {
        fs::write(&folder.files()[0], bytes).unwrap();
        assert_eq!(folder.entries(&history), left, "{what}");
    }
    // What is appended behind a torn end is read.
    fs::write(&folder.files()[0], &whole[..whole.len() - 5]).unwrap();
    drop(history);
    let history = folder.open();
    folder.keep(&history, &["dave"]).await;
    assert_eq!(folder.entries(&history), known(&[(1, "alice"), (2, "bobby"), (3, "dave")]));
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

#[tokio::test]
async fn entries_that_cannot_be_written_leave_a_gap() {
    let folder = Folder::new();
    let history = folder.open();
    folder.keep(&history, &["alice"]).await;
    history.fill(true);
    folder.keep(&history, &["bob"]).await;
    history.fill(false);
    folder.keep(&history, &["carol"]).await;
    assert_eq!(folder.entries(&history), known(&[(1, "alice"), (3, "carol")]));
}

#[tokio::test]
async fn entries_of_another_key_ring_or_owner_do_not_open() {
    let folder = Folder::new();
    let history = folder.open();
    folder.keep(&history, &["alice"]).await;
    drop(history);
    let other = Folder { keyring: Keyring::generate(), ..folder };
    assert_eq!(other.entries(&other.open()), [(1, None)]);
}

#[test]
fn a_mark_is_replaced_as_a_whole_and_a_damaged_one_counts_as_missing() {
    let folder = Folder::new();
    let mark = HistoryMark { number: 9, owners: vec![folder.owner], ..HistoryMark::default() };
    mark.write(folder.folder.path(), folder.owner).unwrap();
    assert_eq!(HistoryMark::read(folder.folder.path(), folder.owner), Some(mark));
    fs::write(folder.folder.path().join(format!("{}.mark", folder.owner)), "").unwrap();
    assert_eq!(HistoryMark::read(folder.folder.path(), folder.owner), None);
}

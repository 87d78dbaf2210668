//! An open store, with the means to close and reopen it.

use super::*;

type OpenStore = Box<dyn Fn(&Clock) -> Arc<dyn Store> + Send + Sync>;

/// An open store, with the means to close and reopen it.
pub(super) struct StorePlace {
    pub(super) clock: ManualClock,
    reopen: OpenStore,
    pub(super) store: Arc<dyn Store>,
    /// Several processes may have it open.
    shared: bool,
}

impl StorePlace {
    pub(super) fn new(reopen: impl Fn(&Clock) -> Arc<dyn Store> + Send + Sync + 'static) -> Self {
        let clock = ManualClock::new(SystemTime::from(sample::NOW));
        let store = reopen(&Clock::manual(&clock));
        Self { clock, reopen: Box::new(reopen), store, shared: false }
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let codes = Keyring::generate().row_codes();
        let url = move || format!("sqlite://{}", folder.path().join("tokens.db").display());
        Self::new(move |clock| open(&url(), Migrate::Auto, clock, codes.clone()).unwrap())
    }

    #[cfg(feature = "postgres")]
    pub(super) fn postgres() -> Option<Self> {
        let url = crate::store::postgres::server::shared()?.url();
        let codes = Keyring::generate().row_codes();
        let place = Self::new(move |clock| open(&url, Migrate::Auto, clock, codes.clone()).unwrap());
        Some(Self { shared: true, ..place })
    }

    /// Opens the store in another process, as it were: where only one process can have it, returns the open one.
    pub(super) fn another(&self) -> Arc<dyn Store> {
        match self.shared {
            true => (self.reopen)(&Clock::manual(&self.clock)),
            false => self.store.clone(),
        }
    }

    pub(super) async fn restart(&mut self) {
        self.store.close().await.unwrap();
        self.store = (self.reopen)(&Clock::manual(&self.clock));
    }

    pub(super) fn now(&self) -> StoreTime {
        self.wall().by_store_clock()
    }

    pub(super) fn wall(&self) -> WallTime {
        self.clock.now().into()
    }

    pub(super) async fn change(&self, key: &TokenKey, change: Change) -> Changed {
        self.store.change(key, change).await.unwrap()
    }

    /// Applies the change, and checks its reply and that the returned row is the stored one.
    pub(super) async fn done(&self, key: &TokenKey, change: Change, reply: ChangeReply) -> Row {
        let changed = self.change(key, change).await;
        assert_eq!(changed.reply, reply);
        let row = changed.row.unwrap();
        assert_eq!(self.row(key).await.as_ref(), Some(&row), "the returned row is the stored one");
        row
    }

    pub(super) async fn row(&self, key: &TokenKey) -> Option<Row> {
        self.store.read(key).await.unwrap().row
    }

    pub(super) async fn connected(&self, key: &TokenKey, number: u8) -> Row {
        self.done(key, connecting(key, Some(number), number.wrapping_add(100)), ChangeReply::Done).await
    }

    /// Refreshes once: spends the stored token and stores `new`.
    pub(super) async fn refreshed(&self, key: &TokenKey, attempt: u8, new: u8) -> Row {
        let row = self.row(key).await.unwrap();
        let claimed = self.done(key, Change::Claim(claim(attempt, &row)), ChangeReply::Done).await;
        self.done(key, committed(&commit(attempt, &claimed, new)), ChangeReply::Resolved(Resolution::Own)).await
    }

    pub(super) async fn due(&self, by: WallTime) -> Vec<String> {
        let page = self.store.due("idp", by, None, 1_000).await.unwrap();
        page.rows.iter().map(|row| row.key.user().to_owned()).collect()
    }
}

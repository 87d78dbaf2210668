//! Published tokens: what the supervisor knows about a token, in one block of memory with its key.

use std::{
    ops::{Deref, Range},
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
};

use triomphe::ThinArc;

use super::{
    AccessToken, BootTime, Expires, Exposed, Generation, TokenKey, WallTime,
    standing::{Grade, TokenStanding, Warning},
};

/// The token that is published for a key, with everything that the hot path needs to decide about it. Cloning costs one
/// counter: the snapshot, the key's actor and every [`Token`](super::Token) handed out share it.
///
/// Counter, facts, key and names are one allocation, so that a lookup that has found the pointer waits for memory once.
/// The access token itself is not in it. Its bytes are wiped with the last owner, which safe code can only do to memory
/// that has an owner of its own, and only those who use the token read them.
#[derive(Clone)]
pub(crate) struct Issued(IssuedBlock);

/// The block of memory of a published token.
pub(crate) type IssuedBlock = ThinArc<IssuedHead, u8>;

/// A published token that is lent.
#[derive(Clone, Copy)]
pub(crate) struct IssuedRef<'a>(&'a IssuedBlock);

/// The part of a published token that has a fixed size; behind it stand the key, the id of the grant, the token type and the
/// scope.
///
/// The order of the fields puts what a read looks at beside the counter, which stands before them.
#[repr(C)]
pub(crate) struct IssuedHead {
    key_hash: u64,
    /// The expiration by the boot-time clock, which a step of the wall clock does not move; `BootTime::MAX` if none.
    boot_end: BootTime,
    wall_end: WallTime,
    /// When the token is due for a refresh; `WallTime::MAX` if never.
    due_at: WallTime,
    /// The last use, in coarse ticks, so that the actor notices when the key is idle.
    pub(crate) used: AtomicU32,
    standing: AtomicU8,
    /// Whether the token is so far in the journal alone.
    pub(crate) journaled: bool,
    never_expires: bool,
    idp_len: u8,
    user_len: u16,
    account_len: u16,
    grant_id_len: u16,
    token_type_len: u16,
    pub(crate) generation: Generation,
    pub(crate) access_token: AccessToken,
    /// What there is beside the token; most providers have nothing.
    beside: Option<Box<Beside>>,
}

/// What a token is published with.
pub(crate) struct Publication<'a> {
    pub(crate) key: &'a TokenKey,
    pub(crate) grant_id: &'a str,
    pub(crate) access_token: AccessToken,
    pub(crate) token_type: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) expires: Expires,
    pub(crate) generation: Generation,
    pub(crate) due_at: Option<WallTime>,
    /// When the token expires by the boot-time clock.
    pub(crate) boot_end: Option<BootTime>,
    /// Whether the token is so far in the journal alone.
    pub(crate) journaled: bool,
    /// Members of the response that callers need beside the token.
    pub(crate) exposed: &'a Exposed,
    /// The scheme of `Authorization` headers, where the provider has its own.
    pub(crate) scheme: Option<&'a str>,
}

/// What callers need to use a token, beside the token.
struct Beside {
    exposed: Exposed,
    scheme: Option<Box<str>>,
}

impl Issued {
    pub(crate) fn new(of: Publication<'_>) -> Self {
        let [idp, user, account] = of.key.parts();
        let needs_more = !of.exposed.0.is_empty() || of.scheme.is_some();
        let beside = || Box::new(Beside { exposed: of.exposed.clone(), scheme: of.scheme.map(Box::from) });
        let head = IssuedHead {
            key_hash: of.key.keyed_hash(),
            boot_end: of.boot_end.unwrap_or(BootTime::MAX),
            wall_end: of.expires.at().unwrap_or(WallTime::MAX),
            due_at: of.due_at.unwrap_or(WallTime::MAX),
            used: AtomicU32::new(0),
            standing: AtomicU8::new(TokenStanding::Good as u8),
            journaled: of.journaled,
            never_expires: of.expires == Expires::Never,
            // Keys and ids that are stored are far shorter. A longer one would name no key.
            idp_len: u8::try_from(idp.len()).unwrap_or(u8::MAX),
            user_len: short(user),
            account_len: short(account),
            grant_id_len: short(of.grant_id),
            token_type_len: short(of.token_type),
            generation: of.generation,
            access_token: of.access_token,
            beside: needs_more.then(beside),
        };
        let texts = [idp, user, account, of.grant_id, of.token_type, of.scope].concat();
        Self(ThinArc::from_header_and_slice(head, texts.as_bytes()))
    }

    /// Returns what stands for a grant that ended as of this generation: no caller gets it.
    pub(crate) fn ended(key: &TokenKey, generation: Generation) -> Self {
        let ended = Self::new(Publication {
            key,
            grant_id: "",
            access_token: AccessToken::from(""),
            token_type: "",
            scope: "",
            expires: Expires::At(WallTime(0)),
            generation,
            due_at: None,
            boot_end: Some(BootTime(0)),
            journaled: false,
            exposed: &Exposed::default(),
            scheme: None,
        });
        ended.set_standing(TokenStanding::Withdrawn);
        ended
    }

    #[inline]
    pub(crate) fn by_ref(&self) -> IssuedRef<'_> {
        IssuedRef(&self.0)
    }

    pub(crate) fn into_block(self) -> IssuedBlock {
        self.0
    }

    /// Returns whether the token is the key's.
    pub(crate) fn is_of(&self, key: &TokenKey) -> bool {
        self.by_ref().is_of(key)
    }

    pub(crate) fn grant_id(&self) -> &str {
        self.by_ref().grant_id()
    }
}

impl<'a> IssuedRef<'a> {
    #[inline]
    pub(crate) fn new(block: &'a IssuedBlock) -> Self {
        Self(block)
    }

    /// Returns the token as one of its owners.
    #[inline]
    pub(crate) fn to_owned(self) -> Issued {
        Issued(self.0.clone())
    }

    #[inline]
    pub(crate) fn head(self) -> &'a IssuedHead {
        &self.0.header.header
    }

    /// Returns whether the token is the key's.
    #[inline]
    pub(crate) fn is_of(self, key: &TokenKey) -> bool {
        let [idp, user, account] = self.key_lens();
        self.key_hash == key.keyed_hash() && key.is([idp, user, account], &self.0.slice[..idp + user + account])
    }

    /// Returns how many owners share the token.
    #[cfg(test)]
    pub(crate) fn owners(self) -> usize {
        ThinArc::strong_count(self.0)
    }

    /// Returns whether both are one publication.
    pub(crate) fn is_same(self, other: IssuedRef<'_>) -> bool {
        std::ptr::eq(self.head(), other.head())
    }

    /// Returns the key that the token belongs to.
    pub(crate) fn key(self) -> TokenKey {
        let [idp, user, account] = self.key_lens();
        let text = |from: usize, len: usize| self.text(from..from + len);
        TokenKey::at(text(0, idp)).user(text(idp, user)).account(text(idp + user, account))
    }

    pub(crate) fn grant_id(self) -> &'a str {
        let from = self.key_lens().iter().sum();
        self.text(from..from + usize::from(self.grant_id_len))
    }

    pub(super) fn token_type(self) -> &'a str {
        let from = self.scope_from() - usize::from(self.token_type_len);
        self.text(from..self.scope_from())
    }

    pub(super) fn scope(self) -> &'a str {
        self.text(self.scope_from()..self.0.slice.len())
    }

    fn scope_from(self) -> usize {
        self.key_lens().iter().sum::<usize>() + usize::from(self.grant_id_len) + usize::from(self.token_type_len)
    }

    #[inline]
    fn key_lens(self) -> [usize; 3] {
        [usize::from(self.idp_len), usize::from(self.user_len), usize::from(self.account_len)]
    }

    fn text(self, range: Range<usize>) -> &'a str {
        self.0.slice.get(range).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl Deref for IssuedRef<'_> {
    type Target = IssuedHead;

    #[inline]
    fn deref(&self) -> &IssuedHead {
        self.head()
    }
}

impl Deref for Issued {
    type Target = IssuedHead;

    #[inline]
    fn deref(&self) -> &IssuedHead {
        &self.0.header.header
    }
}

impl IssuedHead {
    pub(crate) fn expires(&self) -> Expires {
        match self.wall_end {
            WallTime::MAX if self.never_expires => Expires::Never,
            WallTime::MAX => Expires::Unknown,
            end => Expires::At(end),
        }
    }

    pub(super) fn scheme(&self) -> Option<&str> {
        self.beside.as_ref()?.scheme.as_deref()
    }

    pub(super) fn fields(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        self.beside.as_deref().map(|beside| &beside.exposed.0)
    }

    #[inline]
    pub(crate) fn standing(&self) -> TokenStanding {
        const ALL: [TokenStanding; 6] = [
            TokenStanding::Good,
            TokenStanding::Withdrawn,
            TokenStanding::Failing,
            TokenStanding::InDoubt,
            TokenStanding::ReconnectRequired,
            TokenStanding::Rejected,
        ];
        ALL[usize::from(self.standing.load(Ordering::Acquire)) % ALL.len()]
    }

    pub(crate) fn set_standing(&self, standing: TokenStanding) {
        self.standing.store(standing as u8, Ordering::Release);
    }

    /// Returns whether the token is valid at these times; both clocks must agree.
    #[inline]
    pub(crate) fn valid_at(&self, wall: WallTime, boot: BootTime) -> bool {
        wall < self.wall_end && boot < self.boot_end
    }

    /// Returns how the token is handed out at this time; `None` if it may not be.
    #[inline]
    pub(super) fn grade(&self, wall: WallTime) -> Option<Grade> {
        Some(match self.standing() {
            TokenStanding::Good if self.due_at <= wall => Grade::Ageing,
            TokenStanding::Good => Grade::Fresh,
            TokenStanding::Withdrawn => return None,
            TokenStanding::Failing => Grade::LastGood(Warning::RefreshFailing),
            TokenStanding::InDoubt => Grade::LastGood(Warning::InDoubt),
            TokenStanding::ReconnectRequired => Grade::LastGood(Warning::ReconnectRequired),
            TokenStanding::Rejected => Grade::LastGood(Warning::Rejected),
        })
    }

    /// Records a use in this tick. Written only once a tick, so that readers on many cores do not contend for the cache
    /// line.
    #[inline]
    pub(crate) fn mark_used(&self, tick: u32) {
        if self.used.load(Ordering::Relaxed) != tick {
            self.used.store(tick, Ordering::Relaxed);
        }
    }
}

/// Returns the length; the largest one for texts beyond it, which are never stored.
fn short(text: &str) -> u16 {
    u16::try_from(text.len()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expiry, model::Exposed};

    fn issued(key: &TokenKey, access_token: &str, expires: Expires, exposed: &Exposed, scheme: Option<&str>) -> Issued {
        Issued::new(Publication {
            key,
            grant_id: "g_7yp2kq4mzt5c",
            access_token: AccessToken::from(access_token),
            token_type: "bearer",
            scope: "repo read:user",
            expires,
            generation: Generation(7),
            due_at: None,
            boot_end: None,
            journaled: false,
            exposed,
            scheme,
        })
    }

    fn plain(key: &TokenKey) -> Issued {
        issued(key, "ts-test-secret", Expires::Never, &Exposed::default(), None)
    }

    #[test]
    fn what_is_published_is_what_callers_get() {
        let key = TokenKey::at("idp").user("alice").account("work");
        let token = plain(&key).hand_out(WallTime(0)).unwrap();
        assert_eq!(
            (token.grant_id(), token.token_type(), token.scope()),
            ("g_7yp2kq4mzt5c", "bearer", "repo read:user")
        );
        assert_eq!((token.access_token().expose_secret(), token.generation().get()), ("ts-test-secret", 7));
        assert_eq!(*token.authorization(), "Bearer ts-test-secret");
        assert!(token.field("instance_url").is_none());

        let exposed = Exposed(serde_json::from_str(r#"{"instance_url": "https://acme.example"}"#).unwrap());
        let token =
            issued(&key, "ts-test-secret", Expires::Never, &exposed, Some("Bot")).hand_out(WallTime(0)).unwrap();
        assert_eq!(*token.authorization(), "Bot ts-test-secret");
        assert_eq!(token.field("instance_url").and_then(|url| url.as_str()), Some("https://acme.example"));

        for (expires, shown) in [
            (Expires::At(WallTime(5)), Expiry::At(WallTime(5).into())),
            (Expires::Never, Expiry::Never),
            (Expires::Unknown, Expiry::Unknown),
        ] {
            let token = issued(&key, "", expires, &Exposed::default(), None).hand_out(WallTime(0)).unwrap();
            assert_eq!(token.expiry(), shown);
        }
    }

    #[test]
    fn a_token_is_of_its_own_key_alone() {
        let long = "x".repeat(255);
        let keys = [
            TokenKey::at("c").user("ab"),
            TokenKey::at("bc").user("a"),
            TokenKey::at("b").user("a").account("c"),
            TokenKey::at("b").user("ac"),
            TokenKey::at("b").user(&long).account(&long),
        ];
        for (at, key) in keys.iter().enumerate() {
            for (other_at, other) in keys.iter().enumerate() {
                assert_eq!(plain(key).is_of(other), at == other_at, "{key:?} and {other:?}");
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_last_owner_wipes_the_access_token() {
        use std::{fs::File, os::unix::fs::FileExt};
        let secret = "ts-test-secret-".repeat(20);
        let first = issued(&TokenKey::at("idp").user("alice"), &secret, Expires::Never, &Exposed::default(), None);
        let at = first.access_token.expose_secret().as_ptr() as u64;
        let memory = File::open("/proc/self/mem").unwrap();
        let in_memory = || {
            // The allocator writes into the first bytes of memory that is free.
            let mut bytes = vec![0; secret.len() - 64];
            memory.read_exact_at(&mut bytes, at + 64).unwrap();
            bytes == secret.as_bytes()[64..]
        };
        let second = first.hand_out(WallTime(0)).unwrap();
        drop(first);
        assert!(in_memory());
        drop(second);
        assert!(!in_memory());
    }

    #[test]
    fn a_usual_token_takes_two_small_blocks_of_memory() {
        let key = TokenKey::at("gitlab").user("user-123456@example.com");
        let secret = "s".repeat(200);
        let mut kept = None;
        let taken = allocation_counter::measure(|| {
            kept = Some(issued(&key, &secret, Expires::Never, &Exposed::default(), None));
        });
        assert_eq!(taken.count_current, 2);
        assert!(taken.bytes_current <= 400, "{}", taken.bytes_current);
    }
}

//! A row of the table `grants` and its conversion from and to the model's [`Row`].

use std::borrow::Cow;

use diesel::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{StoreError, schema::grants};
use crate::{
    keyring::{RowCode, RowCodes},
    model::{
        Alt, Attempted, Expires, Fingerprint, Generation, Id, Lease, Row, Sealed, Spendable, StoreTime, TokenKey,
        WallTime,
    },
    protocol::schedule::wake_at,
};

/// A row as it was read, without the surrogate key and the revision.
#[derive(Queryable, Selectable)]
#[diesel(table_name = grants)]
pub(super) struct GrantRecord {
    #[diesel(embed)]
    name: Name,
    #[diesel(embed)]
    content: Content,
}

/// The columns that identify a row.
#[derive(Queryable, Selectable)]
#[diesel(table_name = grants)]
pub(super) struct Name {
    idp: String,
    user_id: String,
    account: String,
    grant_id: String,
}

/// The columns that change.
#[derive(Queryable, Selectable)]
#[diesel(table_name = grants)]
pub(super) struct Content {
    incarnation: Vec<u8>,
    generation: i64,
    client_id: Option<String>,
    refresh_token: Option<Vec<u8>>,
    fingerprint: Option<Vec<u8>>,
    parent: Option<Vec<u8>>,
    committed_by: Option<String>,
    alt: Option<String>,
    epoch: i64,
    lease: Option<String>,
    lease_until: Option<i64>,
    intent: Option<String>,
    verdict: Option<String>,
    held: Option<String>,
    issued_at: i64,
    expires_at: Option<i64>,
    refresh_expires_at: Option<i64>,
    notice_at: Option<i64>,
    due_at: Option<i64>,
    retry_at: Option<i64>,
    last_error: Option<String>,
    document: Vec<u8>,
    tombstone: Option<String>,
    changed_at: i64,
    wake_at: Option<i64>,
    code: Option<Vec<u8>>,
}

/// The columns of a row as they are written and as the code covers them. What needs no conversion is borrowed from the row or
/// the record.
#[derive(PartialEq)]
pub(super) struct Columns<'a> {
    pub(super) idp: &'a str,
    pub(super) user_id: &'a str,
    pub(super) account: &'a str,
    pub(super) grant_id: &'a str,
    pub(super) incarnation: &'a [u8],
    pub(super) generation: i64,
    pub(super) client_id: Option<&'a str>,
    pub(super) refresh_token: Option<&'a [u8]>,
    pub(super) fingerprint: Option<&'a [u8]>,
    pub(super) parent: Option<&'a [u8]>,
    pub(super) committed_by: Option<Cow<'a, str>>,
    pub(super) alt: Option<Cow<'a, str>>,
    pub(super) epoch: i64,
    pub(super) lease: Option<Cow<'a, str>>,
    pub(super) lease_until: Option<i64>,
    pub(super) intent: Option<Cow<'a, str>>,
    pub(super) verdict: Option<Cow<'a, str>>,
    pub(super) held: Option<&'a str>,
    pub(super) issued_at: i64,
    pub(super) expires_at: Option<i64>,
    pub(super) refresh_expires_at: Option<i64>,
    pub(super) notice_at: Option<i64>,
    pub(super) due_at: Option<i64>,
    pub(super) retry_at: Option<i64>,
    pub(super) last_error: Option<Cow<'a, str>>,
    pub(super) document: &'a [u8],
    pub(super) tombstone: Option<Cow<'a, str>>,
    pub(super) changed_at: i64,
    pub(super) wake_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct AltRecord {
    /// Sealed, in hexadecimal digits.
    token: String,
    fingerprint: Fingerprint,
    attempt: Id,
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct LeaseHolder {
    attempt: Id,
    owner: Id,
}

impl<'a> From<&'a Row> for Columns<'a> {
    fn from(row: &'a Row) -> Self {
        let alt = |Alt { token, by }: &Alt| AltRecord {
            token: hex(&token.sealed.0),
            fingerprint: token.fingerprint,
            attempt: by.attempt,
            epoch: by.epoch,
        };
        Self {
            idp: row.key.idp(),
            user_id: row.key.user(),
            account: row.key.account_name(),
            grant_id: &row.grant_id,
            incarnation: &row.incarnation.0,
            generation: signed(row.generation.0),
            client_id: row.client_id.as_deref(),
            refresh_token: row.refresh_token.as_ref().map(|token| token.sealed.0.as_slice()),
            fingerprint: row.refresh_token.as_ref().map(|token| token.fingerprint.0.as_slice()),
            parent: row.parent.as_ref().map(|parent| parent.0.as_slice()),
            committed_by: json(row.commit.as_ref()),
            alt: json(row.alt.as_ref().map(alt).as_ref()),
            epoch: signed(row.epoch),
            lease: json(row.lease.map(|Lease { attempt, owner, .. }| LeaseHolder { attempt, owner }).as_ref()),
            lease_until: row.lease.map(|lease| lease.until.0),
            intent: json(row.intent.as_ref()),
            verdict: json(row.verdict.as_ref()),
            held: row.held.as_deref(),
            issued_at: row.issued_at.0,
            expires_at: expiry_column(row.expires),
            refresh_expires_at: expiry_column(row.refresh_expires),
            notice_at: row.notice_at.map(|time| time.0),
            due_at: row.due_at.map(|time| time.0),
            retry_at: row.retry_at.map(|time| time.0),
            last_error: json(row.last_error.as_ref()),
            document: &row.document.0,
            tombstone: json(row.tombstone.as_ref()),
            changed_at: row.changed_at.0,
            wake_at: wake_at(row).map(|time| time.0),
        }
    }
}

impl<'a> From<&'a GrantRecord> for Columns<'a> {
    fn from(GrantRecord { name, content }: &'a GrantRecord) -> Self {
        let text = |column: &'a Option<String>| column.as_deref().map(Cow::Borrowed);
        Self {
            idp: &name.idp,
            user_id: &name.user_id,
            account: &name.account,
            grant_id: &name.grant_id,
            incarnation: &content.incarnation,
            generation: content.generation,
            client_id: content.client_id.as_deref(),
            refresh_token: content.refresh_token.as_deref(),
            fingerprint: content.fingerprint.as_deref(),
            parent: content.parent.as_deref(),
            committed_by: text(&content.committed_by),
            alt: text(&content.alt),
            epoch: content.epoch,
            lease: text(&content.lease),
            lease_until: content.lease_until,
            intent: text(&content.intent),
            verdict: text(&content.verdict),
            held: content.held.as_deref(),
            issued_at: content.issued_at,
            expires_at: content.expires_at,
            refresh_expires_at: content.refresh_expires_at,
            notice_at: content.notice_at,
            due_at: content.due_at,
            retry_at: content.retry_at,
            last_error: text(&content.last_error),
            document: &content.document,
            tombstone: text(&content.tombstone),
            changed_at: content.changed_at,
            wake_at: content.wake_at,
        }
    }
}

impl Columns<'_> {
    /// Computes the code of the row that is stored under `id`: over every column but the code itself and the revision, which
    /// only counts.
    pub(super) fn code(&self, id: i64, codes: &RowCodes) -> RowCode {
        let mut code = codes.begin();
        for text in [self.idp, self.user_id, self.account, self.grant_id] {
            code.add(Some(text.as_bytes()));
        }
        for number in [id, self.generation, self.epoch, self.issued_at, self.changed_at] {
            code.add(Some(&number.to_le_bytes()));
        }
        for number in [
            self.lease_until,
            self.expires_at,
            self.refresh_expires_at,
            self.notice_at,
            self.due_at,
            self.retry_at,
            self.wake_at,
        ] {
            code.add(number.map(i64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
        }
        for text in [
            self.client_id,
            self.committed_by.as_deref(),
            self.alt.as_deref(),
            self.lease.as_deref(),
            self.intent.as_deref(),
            self.verdict.as_deref(),
            self.held,
            self.last_error.as_deref(),
            self.tombstone.as_deref(),
        ] {
            code.add(text.map(str::as_bytes));
        }
        for bytes in [self.refresh_token, self.fingerprint, self.parent] {
            code.add(bytes);
        }
        code.add(Some(self.incarnation));
        code.add(Some(self.document));
        code
    }
}

/// The groups of columns that a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Touched {
    /// Any other column than those of a claim: epoch, lease and intent.
    pub(super) content: bool,
    /// The refresh token, which an index finds by its fingerprint.
    pub(super) token: bool,
    /// The time of the next wake-up, which is indexed.
    pub(super) wake: bool,
}

impl Touched {
    pub(super) const ALL: Self = Self { content: true, token: true, wake: true };

    pub(super) fn between(before: &Row, after: &Row) -> Self {
        // A field that is added to the row is compared, too, or named here.
        let Row {
            epoch: _,
            lease: _,
            intent: _,
            refresh_token,
            key,
            grant_id,
            incarnation,
            generation,
            client_id,
            parent,
            commit,
            alt,
            verdict,
            held,
            issued_at,
            expires,
            refresh_expires,
            notice_at,
            due_at,
            retry_at,
            last_error,
            document,
            tombstone,
            changed_at,
        } = before;
        let same = *key == after.key
            && *grant_id == after.grant_id
            && *incarnation == after.incarnation
            && *generation == after.generation
            && *client_id == after.client_id
            && *parent == after.parent
            && *commit == after.commit
            && *alt == after.alt
            && *verdict == after.verdict
            && *held == after.held
            && *issued_at == after.issued_at
            && *expires == after.expires
            && *refresh_expires == after.refresh_expires
            && *notice_at == after.notice_at
            && *due_at == after.due_at
            && *retry_at == after.retry_at
            && *last_error == after.last_error
            && *document == after.document
            && *tombstone == after.tombstone
            && *changed_at == after.changed_at;
        let token = *refresh_token != after.refresh_token;
        Self { content: token || !same, token, wake: wake_at(before) != wake_at(after) }
    }
}

impl GrantRecord {
    /// Checks that the record is as this program wrote it.
    ///
    /// # Errors
    /// It has no code, or another one: it was changed or damaged outside the program.
    pub(super) fn verify(&self, id: i64, codes: &RowCodes) -> Result<(), StoreError> {
        match &self.content.code {
            Some(stored) if Columns::from(self).code(id, codes).is(stored) => Ok(()),
            _ => Err(StoreError::Corrupt { grant_id: self.name.grant_id.clone(), column: "code" }),
        }
    }

    pub(super) fn key(&self) -> TokenKey {
        TokenKey::at(&self.name.idp).user(&self.name.user_id).account(&self.name.account)
    }

    /// Converts the record to the row of `key`, the key by which it was found.
    ///
    /// # Errors
    /// Names the first column that holds what this program never writes.
    pub(super) fn to_row(&self, key: TokenKey) -> Result<Row, StoreError> {
        let Self { name, content: record } = self;
        let corrupt = |column: &'static str| StoreError::Corrupt { grant_id: name.grant_id.clone(), column };
        let fingerprint = |bytes: &[u8], column| Fingerprint::try_from(bytes).map_err(|_| corrupt(column));
        let refresh_token = match (&record.refresh_token, &record.fingerprint) {
            (Some(sealed), Some(bytes)) => {
                Some(Spendable { sealed: Sealed(sealed.clone()), fingerprint: fingerprint(bytes, "fingerprint")? })
            }
            (None, None) => None,
            _ => return Err(corrupt("fingerprint")),
        };
        let alt = parse::<AltRecord>(record.alt.as_deref(), || corrupt("alt"))?;
        let alt = alt.map(|alt| -> Result<Alt, StoreError> {
            let sealed = unhex(&alt.token).ok_or_else(|| corrupt("alt"))?;
            let token = Spendable { sealed: Sealed(sealed), fingerprint: alt.fingerprint };
            Ok(Alt { token, by: Attempted { attempt: alt.attempt, epoch: alt.epoch } })
        });
        let alt = alt.transpose()?;
        let lease = match (parse::<LeaseHolder>(record.lease.as_deref(), || corrupt("lease"))?, record.lease_until) {
            (Some(LeaseHolder { attempt, owner }), Some(until)) => {
                Some(Lease { attempt, owner, until: StoreTime(until) })
            }
            (None, None) => None,
            _ => return Err(corrupt("lease")),
        };
        Ok(Row {
            key,
            incarnation: record.incarnation.as_slice().try_into().map_err(|_| corrupt("incarnation"))?,
            generation: Generation(record.generation.try_into().map_err(|_| corrupt("generation"))?),
            client_id: record.client_id.clone(),
            refresh_token,
            parent: record.parent.as_ref().map(|bytes| fingerprint(bytes, "parent")).transpose()?,
            commit: parse(record.committed_by.as_deref(), || corrupt("committed_by"))?,
            alt,
            epoch: record.epoch.try_into().map_err(|_| corrupt("epoch"))?,
            lease,
            intent: parse(record.intent.as_deref(), || corrupt("intent"))?,
            verdict: parse(record.verdict.as_deref(), || corrupt("verdict"))?,
            held: record.held.clone(),
            issued_at: WallTime(record.issued_at),
            expires: expires(record.expires_at),
            refresh_expires: expires(record.refresh_expires_at),
            notice_at: record.notice_at.map(StoreTime),
            due_at: record.due_at.map(WallTime),
            retry_at: record.retry_at.map(WallTime),
            last_error: parse(record.last_error.as_deref(), || corrupt("last_error"))?,
            document: Sealed(record.document.clone()),
            tombstone: parse(record.tombstone.as_deref(), || corrupt("tombstone"))?,
            changed_at: StoreTime(record.changed_at),
            grant_id: name.grant_id.clone(),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// Converts a counter. Counters grow by one from zero, so they never exceed a signed integer.
fn signed(counter: u64) -> i64 {
    counter.try_into().unwrap_or(i64::MAX)
}

/// Converts an expiry to its column: the largest integer is "never", NULL is "unknown".
fn expiry_column(expires: Expires) -> Option<i64> {
    match expires {
        Expires::At(time) => Some(time.0.min(i64::MAX - 1)),
        Expires::Never => Some(i64::MAX),
        Expires::Unknown => None,
    }
}

pub(super) fn expires(column: Option<i64>) -> Expires {
    match column {
        Some(i64::MAX) => Expires::Never,
        Some(time) => Expires::At(WallTime(time)),
        None => Expires::Unknown,
    }
}

fn json<T: Serialize>(value: Option<&T>) -> Option<Cow<'static, str>> {
    value.map(|value| serde_json::to_string(value).expect("plain structs serialize as JSON").into())
}

fn parse<T: DeserializeOwned>(
    text: Option<&str>,
    corrupt: impl FnOnce() -> StoreError,
) -> Result<Option<T>, StoreError> {
    text.map(serde_json::from_str).transpose().map_err(|_| corrupt())
}

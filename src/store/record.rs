//! A row of the table `grants` and its conversion from and to the model's [`Row`].

use diesel::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{StoreError, schema::grants};
use crate::model::{
    Alt, Attempted, Expires, Fingerprint, Generation, Id, Lease, Row, Sealed, Spendable, StoreTime, TokenKey, WallTime,
};

/// The columns as they are stored, without the surrogate key and the revision.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = grants)]
pub(super) struct GrantRecord {
    #[diesel(embed)]
    pub(super) name: Name,
    #[diesel(embed)]
    pub(super) content: Content,
}

/// The columns that identify a row. They are never updated, so that no update touches their indexes.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = grants)]
pub(super) struct Name {
    idp: String,
    user_id: String,
    account: String,
    grant_id: String,
}

/// The columns that change.
#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = grants, treat_none_as_null = true)]
pub(super) struct Content {
    incarnation: Vec<u8>,
    generation: i64,
    client_id: Option<String>,
    refresh_token: Option<Vec<u8>>,
    fingerprint: Option<Vec<u8>>,
    parent: Option<Vec<u8>>,
    committed_by: Option<String>,
    alt: Option<Vec<u8>>,
    alt_origin: Option<String>,
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
}

#[derive(Serialize, Deserialize)]
struct AltOrigin {
    fingerprint: Fingerprint,
    attempt: Id,
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct LeaseHolder {
    attempt: Id,
    owner: Id,
}

impl From<&Row> for GrantRecord {
    fn from(row: &Row) -> Self {
        let bytes = |fingerprint: Fingerprint| fingerprint.0.to_vec();
        let origin =
            |alt: &Alt| AltOrigin { fingerprint: alt.token.fingerprint, attempt: alt.by.attempt, epoch: alt.by.epoch };
        let name = Name {
            idp: row.key.idp().to_owned(),
            user_id: row.key.user().to_owned(),
            account: row.key.account_name().to_owned(),
            grant_id: row.grant_id.clone(),
        };
        let content = Content {
            incarnation: row.incarnation.0.to_vec(),
            generation: signed(row.generation.0),
            client_id: row.client_id.clone(),
            refresh_token: row.refresh_token.as_ref().map(|token| token.sealed.0.clone()),
            fingerprint: row.refresh_token.as_ref().map(|token| bytes(token.fingerprint)),
            parent: row.parent.map(bytes),
            committed_by: json(row.commit.as_ref()),
            alt: row.alt.as_ref().map(|alt| alt.token.sealed.0.clone()),
            alt_origin: json(row.alt.as_ref().map(origin).as_ref()),
            epoch: signed(row.epoch),
            lease: json(row.lease.map(|Lease { attempt, owner, .. }| LeaseHolder { attempt, owner }).as_ref()),
            lease_until: row.lease.map(|lease| lease.until.0),
            intent: json(row.intent.as_ref()),
            verdict: json(row.verdict.as_ref()),
            held: row.held.clone(),
            issued_at: row.issued_at.0,
            expires_at: expiry_column(row.expires),
            refresh_expires_at: expiry_column(row.refresh_expires),
            notice_at: row.notice_at.map(|time| time.0),
            due_at: row.due_at.map(|time| time.0),
            retry_at: row.retry_at.map(|time| time.0),
            last_error: json(row.last_error.as_ref()),
            document: row.document.0.clone(),
            tombstone: json(row.tombstone.as_ref()),
            changed_at: row.changed_at.0,
            wake_at: wake_at(row).map(|time| time.0),
        };
        Self { name, content }
    }
}

/// Returns when the row needs attention without a caller's request: when it is due, when its doubt settles, or when it
/// ends by itself.
fn wake_at(row: &Row) -> Option<WallTime> {
    if let Some(intent) = &row.intent {
        let moot = row.tombstone.is_none() && !row.sendable() && intent.generation == row.generation;
        return (!moot).then_some(intent.settle_from.by_wall_clock());
    }
    if row.refresh_token.is_none() {
        // Then the user must consent again, which is to be reported.
        return row.expires.at().filter(|_| row.tombstone.is_none() && row.verdict.is_none());
    }
    row.due_at.filter(|_| row.sendable()).max(row.retry_at.filter(|_| row.sendable()))
}

impl GrantRecord {
    pub(super) fn key(&self) -> TokenKey {
        TokenKey::at(&self.name.idp).user(&self.name.user_id).account(&self.name.account)
    }

    /// Converts the record to the row of `key`, the key by which it was found.
    pub(super) fn into_row(self, key: TokenKey) -> Result<Row, StoreError> {
        let Self { name, content: record } = self;
        let corrupt = |column: &'static str| StoreError::Corrupt { grant_id: name.grant_id.clone(), column };
        let fingerprint = |bytes: &[u8], column| Fingerprint::try_from(bytes).map_err(|_| corrupt(column));
        let refresh_token = match (record.refresh_token, &record.fingerprint) {
            (Some(sealed), Some(bytes)) => {
                Some(Spendable { sealed: Sealed(sealed), fingerprint: fingerprint(bytes, "fingerprint")? })
            }
            (None, None) => None,
            _ => return Err(corrupt("fingerprint")),
        };
        let alt = match (record.alt, parse::<AltOrigin>(record.alt_origin, || corrupt("alt_origin"))?) {
            (Some(sealed), Some(AltOrigin { fingerprint, attempt, epoch })) => {
                let token = Spendable { sealed: Sealed(sealed), fingerprint };
                Some(Alt { token, by: Attempted { attempt, epoch } })
            }
            (None, None) => None,
            _ => return Err(corrupt("alt_origin")),
        };
        let lease = match (parse::<LeaseHolder>(record.lease, || corrupt("lease"))?, record.lease_until) {
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
            client_id: record.client_id,
            refresh_token,
            parent: record.parent.map(|bytes| fingerprint(&bytes, "parent")).transpose()?,
            commit: parse(record.committed_by, || corrupt("committed_by"))?,
            alt,
            epoch: record.epoch.try_into().map_err(|_| corrupt("epoch"))?,
            lease,
            intent: parse(record.intent, || corrupt("intent"))?,
            verdict: parse(record.verdict, || corrupt("verdict"))?,
            held: record.held,
            issued_at: WallTime(record.issued_at),
            expires: expires(record.expires_at),
            refresh_expires: expires(record.refresh_expires_at),
            notice_at: record.notice_at.map(StoreTime),
            due_at: record.due_at.map(WallTime),
            retry_at: record.retry_at.map(WallTime),
            last_error: parse(record.last_error, || corrupt("last_error"))?,
            document: Sealed(record.document),
            tombstone: parse(record.tombstone, || corrupt("tombstone"))?,
            changed_at: StoreTime(record.changed_at),
            grant_id: name.grant_id,
        })
    }
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

fn json<T: Serialize>(value: Option<&T>) -> Option<String> {
    value.map(|value| serde_json::to_string(value).expect("plain structs serialize as JSON"))
}

fn parse<T: DeserializeOwned>(
    text: Option<String>,
    corrupt: impl FnOnce() -> StoreError,
) -> Result<Option<T>, StoreError> {
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|_| corrupt())
}

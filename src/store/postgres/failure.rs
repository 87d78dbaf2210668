//! Why an operation on PostgreSQL failed.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::store::StoreError;

/// The failure of an operation.
#[derive(Debug)]
pub(super) enum OperationError {
    Database(DieselError),
    Store(StoreError),
}

impl From<DieselError> for OperationError {
    fn from(error: DieselError) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for OperationError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<OperationError> for StoreError {
    fn from(failure: OperationError) -> Self {
        match failure {
            OperationError::Store(error) => error,
            OperationError::Database(error) => of_database(&error),
        }
    }
}

/// The constraint that keeps a grant's public name unique.
const GRANT_ID: &str = "grants_grant_id_key";

fn of_database(error: &DieselError) -> StoreError {
    match error {
        // Nothing was stored: another writer was first.
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, what)
            if what.constraint_name() != Some(GRANT_ID) =>
        {
            StoreError::Conflict
        }
        DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => StoreError::Conflict,
        DieselError::DatabaseError(_, what) if what.message() == "deadlock detected" => StoreError::Conflict,
        DieselError::DatabaseError(_, what) if what.message().contains("No space left on device") => StoreError::Full,
        // The message contains names of tables and constraints, never a value: values are in the details.
        error => StoreError::Unavailable(error.to_string()),
    }
}

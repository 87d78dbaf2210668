//! A row as a store knows it between two writes.

use super::spent::SpentTokens;
use crate::model::Row;

/// A row with the id and revision that its next write compares.
pub(super) struct Stored {
    pub(super) row: Row,
    pub(super) id: i64,
    pub(super) revision: i64,
    /// Whether the columns are stored as this version of the program writes them. Otherwise the next write writes them all:
    /// the code of a row covers the texts of its columns, not their meaning.
    pub(super) is_canonical: bool,
    /// `None` if they were not read.
    pub(super) spent: Option<SpentTokens>,
}

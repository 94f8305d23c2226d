//! What a table holds, to prove that nothing was lost or overwritten.

use anyhow::{Result, ensure};
use postgres::Client;

use crate::table::{APP_AMOUNT, APP_VALUE, COLUMN, Table, VALUE};
use crate::traffic::Tally;

/// What a table holds besides the column that is filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    rows: i64,
    amount: i64,
    others: String,
}

impl Contents {
    /// Reads the whole table.
    pub fn of(client: &mut Client, table: &Table) -> Result<Self> {
        // The application changes only amounts, and appends rows: the rest of the loaded rows must stay as it is.
        let row = client.query_one(
            &format!(
                "SELECT count(*), coalesce(sum(amount), 0)::bigint,
                        coalesce(sum(hash_record_extended((id, name, email, token, created_at, note), 0))
                                 FILTER (WHERE id <= {}), 0)::text
                 FROM {}",
                table.rows, table.name
            ),
            &[],
        )?;
        Ok(Self {
            rows: row.get(0),
            amount: row.get(1),
            others: row.get(2),
        })
    }

    /// Fails unless the table now holds this, what the application has written since, and no NULL in the column.
    pub fn verify(&self, client: &mut Client, table: &Table, written: &Tally) -> Result<()> {
        self.verify_writes(client, table, written)?;
        verify_column(client, &table.name)
    }

    /// Fails unless the table now holds this and what the application has written since.
    pub fn verify_writes(&self, client: &mut Client, table: &Table, written: &Tally) -> Result<()> {
        let now = Self::of(client, table)?;
        ensure!(
            now.rows == self.rows + written.rows,
            "the table should have {} rows, but has {}",
            self.rows + written.rows,
            now.rows
        );
        ensure!(
            now.amount == self.amount + written.amount,
            "writes of the application were lost: the amounts should add up to {}, but do to {}",
            self.amount + written.amount,
            now.amount
        );
        ensure!(now.others == self.others, "other columns were changed");
        Ok(())
    }
}

fn verify_column(client: &mut Client, table: &str) -> Result<()> {
    let row = client.query_one(
        &format!(
            "SELECT count(*) FILTER (WHERE {COLUMN} IS NULL),
                    count(*) FILTER (WHERE {COLUMN} IS DISTINCT FROM
                        CASE WHEN amount >= {APP_AMOUNT} THEN '{APP_VALUE}' ELSE '{VALUE}' END)
             FROM {table}"
        ),
        &[],
    )?;
    let (missing, wrong): (i64, i64) = (row.get(0), row.get(1));
    ensure!(missing == 0, "{missing} rows were not filled");
    ensure!(wrong == 0, "{wrong} rows have a value that is not theirs");
    Ok(())
}

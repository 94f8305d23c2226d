//! Where the extension's own table and sequence are, and whose they are.
//!
//! Both are found by their OIDs: their schema may be renamed, and the table be moved to another one, at any time.

use pgrx::pg_sys;

use crate::ddl::{self, Locks};
use crate::error::Error;
use crate::pg::lock::{TableLock, try_lock_table};
use crate::pg::role::acting_as;
use crate::pg::spi::{self, Statement, argument};
use crate::pg::transaction::commit_after;
use crate::pg::{message, name, publication};

/// The table that jobs are stored in.
pub const JOB_TABLE: &str = "safe_backfill_job";

/// The extension's own table and sequence.
#[derive(Debug, Clone)]
pub struct Home {
    table: pg_sys::Oid,
    /// The sequence that jobs get their numbers from.
    pub sequence: pg_sys::Oid,
    owner: pg_sys::Oid,
}

impl Home {
    /// Looks them up among the members of the extension. Must be called within an SPI connection.
    ///
    /// # Errors
    /// [`Error::NotInstalled`].
    pub fn find() -> Result<Self, Error> {
        const HOME: &str = "
            SELECT t.oid, t.relowner, s.oid
            FROM pg_extension e
            JOIN pg_depend dt ON dt.refclassid = 'pg_extension'::regclass AND dt.refobjid = e.oid
                 AND dt.deptype = 'e' AND dt.classid = 'pg_class'::regclass
            JOIN pg_class t ON t.oid = dt.objid AND t.relname = 'safe_backfill_job'
            JOIN pg_depend ds ON ds.refclassid = 'pg_extension'::regclass AND ds.refobjid = e.oid
                 AND ds.deptype = 'e' AND ds.classid = 'pg_class'::regclass
            JOIN pg_class s ON s.oid = ds.objid AND s.relname = 'safe_backfill_job_id'
            WHERE e.extname = 'pg_safe_backfill'";
        let rows = spi::catalog(HOME, &[]);
        rows.first()
            .and_then(|row| {
                Some(Home {
                    table: row.get(1)?,
                    owner: row.get(2)?,
                    sequence: row.get(3)?,
                })
            })
            .ok_or(Error::NotInstalled)
    }

    /// The table as SQL names it now.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn table_name(&self) -> Result<String, Error> {
        name::of_relation(self.table).ok_or(Error::ExtensionDropped)
    }

    /// Locks the table for writing, or returns `false` at once if somebody is in the way.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn try_lock(&self) -> Result<bool, Error> {
        let locked = try_lock_table(self.table, TableLock::RowExclusive);
        self.table_name()?;
        Ok(locked)
    }

    /// Runs `work`, which reads or writes the table, in a transaction of its own, as often as it takes to get the locks.
    ///
    /// # Errors
    /// [`Error::LockNotAvailable`], [`Error::ExtensionDropped`], and those of `work`.
    pub fn patiently<T>(&self, work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        self.locked(TableLock::RowExclusive, work)
    }

    fn locked<T>(
        &self,
        lock: TableLock,
        mut work: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let locks = Locks {
            table_name: JOB_TABLE,
            tables: &[self.table],
            lock: Some(lock),
            permit: |_| Ok(()),
        };
        ddl::run(&locks, || {
            self.table_name()?;
            work()
        })
    }

    /// Runs one statement with the rights of the table's owner; `@` stands for the table.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn execute(&self, sql: &str, arguments: &[spi::Argument]) -> Result<spi::Rows, Error> {
        let sql = sql.replace('@', &self.table_name()?);
        Ok(acting_as(self.owner, || spi::execute(&sql, arguments)))
    }

    /// Prepares one statement with the rights of the table's owner; `@` stands for the table.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn prepare(&self, sql: &str, types: &[pg_sys::Oid]) -> Result<Statement, Error> {
        let sql = sql.replace('@', &self.table_name()?);
        Ok(acting_as(self.owner, || Statement::prepare(&sql, types)))
    }

    /// Runs a prepared statement with the rights of the table's owner.
    pub fn run(&self, statement: &Statement, arguments: &[spi::Argument]) -> spi::Rows {
        acting_as(self.owner, || statement.execute(arguments))
    }

    /// Runs a query of PostgreSQL's own views with the rights of the table's owner.
    pub fn query(&self, sql: &str, arguments: &[spi::Argument]) -> spi::Rows {
        acting_as(self.owner, || spi::execute(sql, arguments))
    }

    /// Whether a publication would send the table to subscribers; the caller has it locked.
    pub fn is_published(&self) -> bool {
        publication::publishes(self.table)
    }

    /// Takes the table out of publications of all tables or of its schema: unlogged tables are not published.
    ///
    /// A subscriber that does not have the table would stop at its first row. Must be called between transactions.
    ///
    /// # Errors
    /// [`Error::JobTablePublished`] if a publication names the table itself; [`Error::LockNotAvailable`].
    pub fn keep_unpublished(&self) -> Result<(), Error> {
        if !self.patiently(|| Ok(self.is_published()))? {
            return Ok(());
        }
        let publication = commit_after(|| self.publication())?;
        let became_unlogged = self.locked(TableLock::AccessExclusive, || {
            let published = self.is_published();
            if published {
                self.execute("ALTER TABLE @ SET UNLOGGED", &[])?;
            }
            Ok(published)
        })?;
        if became_unlogged {
            message::notice_with(
                format!(
                    "table \"{JOB_TABLE}\" is unlogged now, because publication \"{publication}\" would publish it"
                ),
                Some(
                    "After a crash of the server the progress of jobs is lost, but no row that was filled.".into(),
                ),
                None,
            );
        }
        Ok(())
    }

    /// A publication of all tables, or of the table's schema.
    fn publication(&self) -> Result<String, Error> {
        const NAMED: &str = "
            SELECT p.pubname::text FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
            WHERE r.prrelid = $1 ORDER BY 1 LIMIT 1";
        const BROAD: &str = "
            SELECT p.pubname::text FROM pg_publication p
            WHERE p.puballtables
            OR p.oid IN (SELECT n.pnpubid FROM pg_publication_namespace n
                         JOIN pg_class c ON c.relnamespace = n.pnnspid WHERE c.oid = $1)
            ORDER BY 1 LIMIT 1";
        let name = |sql| -> Option<String> {
            spi::catalog(sql, &[argument(self.table)])
                .first()
                .and_then(|row| row.get(1))
        };
        match name(NAMED) {
            Some(publication) => Err(Error::JobTablePublished {
                publication,
                table: self.table_name()?,
            }),
            None => Ok(name(BROAD).unwrap_or_default()),
        }
    }
}

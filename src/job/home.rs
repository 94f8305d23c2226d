//! Where the extension's own tables and sequence are, and who owns them.
//!
//! They are identified by OID, since at any time their schema may be renamed or a table moved to another schema.

use pgrx::pg_sys;

use crate::ddl::{self, Locks};
use crate::error::Error;
use crate::messages;
use crate::pg::lock::{ExtensionLock, TableLock};
use crate::pg::parameter::Parameter;
use crate::pg::role::acting_as;
use crate::pg::spi::{Rows, Statement};
use crate::pg::tx::Tx;
use crate::pg::{name, publication, settings};
use crate::run::driver::Driver;

/// The table that jobs are stored in, as messages name it.
const JOB_TABLE: &str = "safe_backfill_job";
/// The table that the progress of each leaf is stored in, likewise.
const PART_TABLE: &str = "safe_backfill_part";
const STEP_TABLE: &str = "safe_backfill_step";

/// The extension's own tables and sequence.
#[derive(Debug, Clone)]
pub struct Home {
    extension: pg_sys::Oid,
    job_table: pg_sys::Oid,
    part_table: pg_sys::Oid,
    step_table: pg_sys::Oid,
    /// The sequence that jobs get their numbers from.
    pub sequence: pg_sys::Oid,
    /// The role that owns them.
    pub owner: pg_sys::Oid,
}

/// The tables as SQL names them now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    job_table: String,
    part_table: String,
    step_table: String,
}

impl Names {
    /// The statement with the names in place of `@job`, `@part` and `@step`.
    fn put_into(&self, sql: &str) -> String {
        sql.replace("@job", &self.job_table)
            .replace("@part", &self.part_table)
            .replace("@step", &self.step_table)
    }
}

impl Home {
    /// Looks them up among the members of the extension.
    ///
    /// # Errors
    /// [`Error::NotInstalled`].
    pub fn find(tx: &Tx) -> Result<Self, Error> {
        const HOME: &str = "
            SELECT min(c.oid) FILTER (WHERE c.relname = 'safe_backfill_job'),
                   min(c.oid) FILTER (WHERE c.relname = 'safe_backfill_part'),
                   min(c.oid) FILTER (WHERE c.relname = 'safe_backfill_step'),
                   min(c.oid) FILTER (WHERE c.relname = 'safe_backfill_job_id'),
                   min(c.relowner) FILTER (WHERE c.relname = 'safe_backfill_job'),
                   min(e.oid)
            FROM pg_extension e
            JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                 AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass
            JOIN pg_class c ON c.oid = d.objid
            WHERE e.extname = 'pg_safe_backfill'";
        let rows = tx.catalog(HOME, &[]);
        rows.first()
            .and_then(|row| {
                Some(Home {
                    job_table: row.get(1)?,
                    part_table: row.get(2)?,
                    step_table: row.get(3)?,
                    sequence: row.get(4)?,
                    owner: row.get(5)?,
                    extension: row.get(6)?,
                })
            })
            .ok_or(Error::NotInstalled)
    }

    /// Looks them up, and has DROP EXTENSION wait until the lock is dropped.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::ExtensionLocked`].
    pub fn hold(tx: &Tx) -> Result<(Self, ExtensionLock), Error> {
        let home = Self::find(tx)?;
        let lock = ExtensionLock::try_acquire(tx, home.extension).ok_or(Error::ExtensionLocked)?;
        Ok((home, lock))
    }

    /// The tables as SQL names them now.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn names(&self, tx: &Tx) -> Result<Names, Error> {
        let name = |table| name::of_relation(tx, table).ok_or(Error::ExtensionDropped);
        Ok(Names {
            job_table: name(self.job_table)?,
            part_table: name(self.part_table)?,
            step_table: name(self.step_table)?,
        })
    }

    fn tables(&self) -> [pg_sys::Oid; 3] {
        [self.job_table, self.part_table, self.step_table]
    }

    /// Locks the tables for writing, or returns `false` at once if others have them locked.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn try_lock(&self, tx: &Tx) -> Result<bool, Error> {
        let mut tables = self.tables().into_iter();
        let locked = tables.all(|table| tx.try_lock_table(table, TableLock::RowExclusive));
        self.names(tx)?;
        Ok(locked)
    }

    /// Runs `work`, which reads or writes the tables, in a transaction of its own, as often as it takes to get the locks.
    ///
    /// No standby is waited for: what is stored of a job is confirmed with the next batch, and a job that a failover finds
    /// in an earlier state is verified again.
    ///
    /// # Errors
    /// [`Error::LockNotAvailable`], [`Error::ExtensionDropped`], and those of `work`.
    pub fn patiently<T>(
        &self,
        driver: &Driver,
        work: impl FnMut(&Tx) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.locked(driver, TableLock::RowExclusive, work)
    }

    fn locked<T>(
        &self,
        driver: &Driver,
        lock: TableLock,
        mut work: impl FnMut(&Tx) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let locks = Locks {
            table_name: JOB_TABLE,
            tables: &self.tables(),
            lock: Some(lock),
            permit: |_, _| Ok(()),
        };
        ddl::run(driver, &locks, |tx| {
            settings::set_local_commit_to_local(tx);
            self.names(tx)?;
            work(tx)
        })
    }

    /// Runs one statement with the rights of the tables' owner; `@job`, `@part` and `@step` stand for the tables.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn execute<'tx>(
        &self,
        tx: &'tx Tx,
        sql: &str,
        parameters: &[&dyn Parameter],
    ) -> Result<Rows<'tx>, Error> {
        let sql = self.names(tx)?.put_into(sql);
        Ok(acting_as(tx, self.owner, || tx.execute(&sql, parameters)))
    }

    /// Prepares one statement with the rights of the tables' owner; `@job`, `@part` and `@step` stand for the tables.
    fn prepare(&self, tx: &Tx, names: &Names, sql: &str, types: &[pg_sys::Oid]) -> Statement {
        let sql = names.put_into(sql);
        acting_as(tx, self.owner, || Statement::prepare(tx, &sql, types))
    }

    /// The statement in `slot`, prepared again if the tables have other names than when it was.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn prepared<'s>(
        &self,
        tx: &Tx,
        slot: &'s mut Option<(Names, Statement)>,
        sql: &str,
        types: &[pg_sys::Oid],
    ) -> Result<&'s Statement, Error> {
        let names = self.names(tx)?;
        let is_current = slot.as_ref().is_some_and(|prepared| prepared.0 == names);
        if !is_current {
            *slot = None;
        }
        let (_, statement) = slot.get_or_insert_with(|| {
            let statement = self.prepare(tx, &names, sql, types);
            (names, statement)
        });
        Ok(statement)
    }

    /// Whether the table of jobs can be read now without waiting; locks it then.
    pub fn try_lock_to_read(&self, tx: &Tx) -> bool {
        tx.try_lock_table(self.job_table, TableLock::AccessShare)
    }

    /// Runs a prepared statement with the rights of the tables' owner.
    pub fn run<'tx>(
        &self,
        tx: &'tx Tx,
        statement: &Statement,
        parameters: &[&dyn Parameter],
    ) -> Rows<'tx> {
        acting_as(tx, self.owner, || statement.execute(tx, parameters))
    }

    /// Whether a publication would send one of the tables to subscribers; the caller has them locked.
    pub fn is_published(&self, tx: &Tx) -> bool {
        let mut tables = self.tables().into_iter();
        tables.any(|table| publication::publishes(tx, table))
    }

    /// Removes the tables from publications of all tables, or of their schema, by making them unlogged: unlogged tables
    /// are not published.
    ///
    /// A subscriber that does not have the tables would stop at their first row. Call it between transactions.
    ///
    /// # Errors
    /// [`Error::JobTablePublished`] if a publication names one of the tables itself; [`Error::LockNotAvailable`].
    pub fn keep_unpublished(&self, driver: &Driver) -> Result<(), Error> {
        if !self.patiently(driver, |tx| Ok(self.is_published(tx)))? {
            return Ok(());
        }
        let publication = driver.transaction(|tx| self.publication(tx))?;
        let became_unlogged = self.locked(driver, TableLock::AccessExclusive, |tx| {
            let published = self.is_published(tx);
            if published {
                self.set_unlogged(tx)?;
            }
            Ok(published)
        })?;
        if became_unlogged {
            messages::say_unlogged(&publication);
        }
        Ok(())
    }

    /// Like [`Home::keep_unpublished`], in the transaction of the calling statement, which holds the locks on the
    /// tables until its end.
    ///
    /// # Errors
    /// [`Error::JobTablePublished`] if a publication names one of the tables itself.
    pub fn keep_unpublished_within(&self, tx: &Tx) -> Result<(), Error> {
        if self.is_published(tx) {
            let publication = self.publication(tx)?;
            self.set_unlogged(tx)?;
            messages::say_unlogged(&publication);
        }
        Ok(())
    }

    /// Fails if the tables cannot be kept out of publications.
    ///
    /// # Errors
    /// [`Error::JobTablePublished`].
    pub fn require_unpublished(&self, tx: &Tx) -> Result<(), Error> {
        match self.is_published(tx) {
            true => self.publication(tx).map(drop),
            false => Ok(()),
        }
    }

    fn set_unlogged(&self, tx: &Tx) -> Result<(), Error> {
        self.execute(tx, "ALTER TABLE @job SET UNLOGGED", &[])?;
        self.execute(tx, "ALTER TABLE @part SET UNLOGGED", &[])?;
        self.execute(tx, "ALTER TABLE @step SET UNLOGGED", &[])?;
        Ok(())
    }

    /// A publication of all tables, or of the schema of one of the job tables.
    fn publication(&self, tx: &Tx) -> Result<String, Error> {
        const NAMED: &str = "
            SELECT p.pubname::text, r.prrelid FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
            WHERE r.prrelid = ANY ($1) ORDER BY 1, 2 LIMIT 1";
        const BROAD: &str = "
            SELECT p.pubname::text FROM pg_publication p
            WHERE p.puballtables
            OR p.oid IN (SELECT n.pnpubid FROM pg_publication_namespace n
                         JOIN pg_class c ON c.relnamespace = n.pnnspid WHERE c.oid = ANY ($1))
            ORDER BY 1 LIMIT 1";
        let tables = self.tables().to_vec();
        let named = tx.catalog(NAMED, &[&tables]);
        let first = named.first().map(|row| (row.get(1), row.get(2)));
        let Some((Some(publication), Some(table))) = first else {
            return Ok(tx.catalog_value(BROAD, &[&tables]).unwrap_or_default());
        };
        Err(Error::JobTablePublished {
            publication,
            table: match table {
                table if table == self.job_table => JOB_TABLE,
                table if table == self.part_table => PART_TABLE,
                _ => STEP_TABLE,
            },
            qualified: name::of_relation(tx, table).ok_or(Error::ExtensionDropped)?,
        })
    }
}

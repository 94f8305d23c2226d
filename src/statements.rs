//! The statements that fill one leaf table.

use pgrx::pg_sys;
use planner::window::Tid;

use crate::filling::{Filling, Recipe};
use crate::pg::spi::{self, Statement, argument, quote};
use crate::pg::tid_scan;
use crate::target::Target;

/// The statements that fill one leaf table, prepared against the name it has.
pub struct LeafStatements {
    table: pg_sys::Oid,
    update: Statement,
    update_unlocked: Statement,
    may_take_long: bool,
    unfilled: Statement,
    count: Statement,
    counts_refused: bool,
    check_at_once: Option<Statement>,
}

/// What triggers, constraints and indexes of a leaf can do to an UPDATE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hazards {
    /// A trigger could set the column back to NULL before the row is written.
    pub may_undo: bool,
    /// Code of a user's, in a trigger, a CHECK, an index or a generated column, could take its time while rows are
    /// locked.
    pub may_take_long: bool,
    /// A trigger, such as that of a deferred foreign key, could wait for a lock at commit.
    pub may_wait_at_commit: bool,
    /// The column is part of a key that others may point to.
    pub key: bool,
}

/// How an UPDATE treats rows that others hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// Waits for them.
    Awaited,
    /// Leaves them alone.
    Skipped,
}

/// A leaf as SQL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafName {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Its schema.
    pub schema: String,
    /// Its own name.
    pub name: String,
}

impl LeafName {
    fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

/// What one UPDATE did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Updated {
    /// Rows whose column has a value now.
    pub filled: u64,
    /// Rows that were written and are NULL still: the expression or a trigger made it so.
    pub refused: u64,
}

impl LeafStatements {
    /// Prepares the statements for the table that the caller named, and so finds SQL that does not fit it.
    ///
    /// # Errors
    /// PostgreSQL's own, such as 42703, 42804, 42883 or 42P02.
    pub fn try_on(target: &Target, filling: &Filling) {
        let name = LeafName {
            oid: target.table,
            schema: target.schema.clone(),
            name: target.table_name.clone(),
        };
        drop(Self::prepare(&name, target, filling, Hazards::default()));
    }

    /// Prepares the statements for one leaf.
    ///
    /// # Errors
    /// PostgreSQL's own, for an expression or a filter that does not fit the table.
    pub fn prepare(leaf: &LeafName, target: &Target, filling: &Filling, hazards: Hazards) -> Self {
        let table = leaf.quoted();
        let alias = quote(&target.table_name);
        let column = quote(&target.column);
        let filter = match &filling.filter {
            Some(filter) => format!(" AND ({filter}\n)"),
            None => String::new(),
        };
        let (value, volatile) = match &filling.recipe {
            Recipe::Constant(_) => ("$2".to_owned(), false),
            Recipe::Expression(text) => {
                let probe = Statement::prepare(
                    &format!("SELECT ({text}\n) FROM ONLY {table} AS {alias}"),
                    &[],
                );
                (format!("({text}\n)"), probe.is_volatile())
            }
        };
        // A row whose expression is NULL is not worth a new version; but a volatile one may be evaluated only once.
        let has_value = match filling.recipe {
            Recipe::Expression(_) if !volatile => format!(" AND {value} IS DISTINCT FROM NULL"),
            _ => String::new(),
        };
        // IS NULL is true of a row of NULLs as well, which is a value that nobody may overwrite.
        let is_null = "IS NOT DISTINCT FROM NULL";
        let is_due = format!("{alias}.{column} {is_null}{filter}{has_value}");
        let one_of = "OPERATOR(pg_catalog.=) ANY";
        let strength = if hazards.key {
            "UPDATE"
        } else {
            "NO KEY UPDATE"
        };
        let unlocked = format!(
            "(ARRAY(SELECT {alias}.ctid FROM ONLY {table} AS {alias} \
             WHERE {alias}.ctid {one_of} ($1) AND {is_due} FOR {strength} SKIP LOCKED))"
        );
        let counts_refused = volatile || hazards.may_undo;
        let update_at = |places: &str| {
            let update = format!(
                "UPDATE ONLY {table} AS {alias} SET {column} = {value} \
                 WHERE {alias}.ctid {one_of} {places} AND {is_due}"
            );
            if counts_refused {
                format!(
                    "WITH updated AS ({update} RETURNING {alias}.{column} {is_null} AS refused) \
                     SELECT pg_catalog.count(*) FILTER (WHERE NOT refused), \
                     pg_catalog.count(*) FILTER (WHERE refused) FROM updated"
                )
            } else {
                update
            }
        };
        let types = match filling.value() {
            Some(constant) => vec![pg_sys::TIDARRAYOID, constant.type_oid()],
            None => vec![pg_sys::TIDARRAYOID],
        };
        let unfilled =
            format!("FROM ONLY {table} AS {alias} WHERE {alias}.{column} {is_null}{filter}");
        let update = Statement::prepare(&update_at("($1)"), &types);
        LeafStatements {
            table: leaf.oid,
            may_take_long: hazards.may_take_long
                || filling.can_be_null()
                || !update.is_plain(leaf.oid),
            update,
            update_unlocked: Statement::prepare(&update_at(&unlocked), &types),
            unfilled: Statement::prepare(
                &format!("SELECT {alias}.ctid {unfilled}{has_value} LIMIT $1"),
                &[pg_sys::INT8OID],
            ),
            count: Statement::prepare(&format!("SELECT pg_catalog.count(*) {unfilled}"), &[]),
            counts_refused,
            check_at_once: hazards
                .may_wait_at_commit
                .then(|| Statement::prepare("SET CONSTRAINTS ALL IMMEDIATE", &[])),
        }
    }

    /// Has deferred constraints checked at the end of each statement of this transaction, where a lock that they wait
    /// for undoes that statement alone.
    pub fn check_at_once(&self) {
        if let Some(statement) = &self.check_at_once {
            statement.execute(&[]);
        }
    }

    /// Whether an UPDATE could take so long that it must not wait for a row while it holds others: the application's
    /// look for deadlocks could fall into that wait.
    pub fn may_take_long(&self) -> bool {
        self.may_take_long
    }

    /// Fills the rows at these places that are NULL now, or when whoever holds them lets go.
    pub fn update(&self, tids: &[Tid], filling: &Filling, busy: Busy) -> Updated {
        let update = match busy {
            Busy::Awaited => &self.update,
            Busy::Skipped => &self.update_unlocked,
        };
        let mut arguments = vec![tids.into()];
        arguments.extend(filling.value().map(spi::Argument::from));
        let rows = tid_scan::enforce(self.table, || update.execute(&arguments));
        if !self.counts_refused {
            return Updated {
                filled: rows.processed(),
                refused: 0,
            };
        }
        let count = |number| {
            let count: Option<i64> = rows.first().and_then(|row| row.get(number));
            count.unwrap_or(0).unsigned_abs()
        };
        Updated {
            filled: count(1),
            refused: count(2),
        }
    }

    /// Places of at most `limit` rows that are still to be filled, as one snapshot sees the table.
    pub fn unfilled(&self, limit: i64) -> Vec<Tid> {
        self.unfilled
            .execute(&[argument(limit)])
            .iter()
            .filter_map(|row| row.tid(1))
            .collect()
    }

    /// How many rows are NULL and meet the filter, as one snapshot sees the table.
    pub fn count_unfilled(&self) -> i64 {
        self.count
            .execute(&[])
            .first()
            .and_then(|row| row.get(1))
            .unwrap_or(0)
    }
}

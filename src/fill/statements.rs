//! The statements that fill one leaf table.

use std::rc::Rc;

use pgrx::pg_sys;
use planner::window::Tid;

use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::job::recipe::Recipe;
use crate::pg::parameter::{Parameter, Tids};
use crate::pg::spi::{Statement, quote};
use crate::pg::tid_scan;
use crate::pg::tx::Tx;
use crate::pg::value::Constant;

/// The statements that fill one leaf table, prepared against the name it has.
pub struct LeafStatements {
    table: pg_sys::Oid,
    /// The value that the statements get as their parameter.
    constant: Option<Rc<Constant>>,
    update: Statement,
    update_unlocked: Statement,
    may_take_long: bool,
    probe: Statement,
    counts_refused: bool,
    check_at_once: Option<Statement>,
}

/// What triggers, constraints and indexes of a leaf can do to an UPDATE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hazards {
    /// A trigger could set the column back to NULL before the row is written.
    pub may_undo: bool,
    /// A user's function, in a trigger, a CHECK, an index or a generated column, could be slow while rows are locked.
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

/// Whether a row that is NULL is to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It is.
    Yes,
    /// It is not: the filter leaves it out.
    No,
    /// It is not: the filter lets it through, but the expression is NULL for it.
    WithoutValue,
}

impl LeafStatements {
    /// Prepares the statements for the table that the caller named, and so finds SQL that does not fit it.
    ///
    /// # Errors
    /// PostgreSQL's own, such as 42703, 42804, 42883 or 42P02.
    pub fn try_on(tx: &Tx, target: &Target, value: &Value) {
        let name = LeafName {
            oid: target.table,
            schema: target.schema.clone(),
            name: target.table_name.clone(),
        };
        drop(Self::prepare(tx, &name, target, value, Hazards::default()));
    }

    /// Prepares the statements for one leaf.
    ///
    /// # Errors
    /// PostgreSQL's own, for an expression or a filter that does not fit the table.
    pub fn prepare(
        tx: &Tx,
        leaf: &LeafName,
        target: &Target,
        value: &Value,
        hazards: Hazards,
    ) -> Self {
        let volatile = is_volatile(tx, leaf, target, value);
        let counts_refused = volatile || hazards.may_undo;
        let sql = Sql::new(leaf, target, value, volatile);
        let mut types = vec![pg_sys::TIDARRAYOID];
        types.extend(value.constant().map(|constant| constant.column_type().oid));
        let update = |places: &str, condition: &str| {
            let update = sql.update(places, condition, counts_refused);
            Statement::prepare(tx, &update, &types)
        };
        let awaited = update("($1)", &sql.is_due());
        LeafStatements {
            table: leaf.oid,
            constant: value.constant(),
            may_take_long: hazards.may_take_long
                || value.can_be_null()
                || !awaited.is_plain(leaf.oid),
            update: awaited,
            // Rows that are locked have met the other conditions, which may be costly.
            update_unlocked: update(&sql.unlocked(hazards.key), &sql.is_null()),
            probe: Statement::prepare(tx, &sql.probe(), &[pg_sys::TIDARRAYOID]),
            counts_refused,
            check_at_once: hazards
                .may_wait_at_commit
                .then(|| Statement::prepare(tx, "SET CONSTRAINTS ALL IMMEDIATE", &[])),
        }
    }

    /// Has deferred constraints checked at the end of each statement of this transaction: if they meet a lock, only
    /// that statement is undone.
    pub fn check_at_once(&self, tx: &Tx) {
        if let Some(statement) = &self.check_at_once {
            statement.execute(tx, &[]);
        }
    }

    /// Whether an UPDATE could take so long that it must not wait for a row while it holds others: meanwhile a session
    /// of the application could start to look for a deadlock.
    pub fn may_take_long(&self) -> bool {
        self.may_take_long
    }

    /// Fills the rows at these places that are NULL, either now or once the locks on them are released.
    pub fn update(&self, tx: &Tx, tids: &[Tid], busy: Busy) -> Updated {
        let update = match busy {
            Busy::Awaited => &self.update,
            Busy::Skipped => &self.update_unlocked,
        };
        let tids = Tids(tids);
        let mut parameters: Vec<&dyn Parameter> = vec![&tids];
        if let Some(constant) = &self.constant {
            parameters.push(constant.as_ref());
        }
        let rows = tid_scan::enforce(tx, self.table, || update.execute(tx, &parameters));
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

    /// Determines, with one snapshot, which of the NULL rows at these places are to be filled.
    pub fn probe(&self, tx: &Tx, tids: &[Tid]) -> Vec<(Tid, Due)> {
        let tids = Tids(tids);
        let rows = tid_scan::enforce(tx, self.table, || self.probe.execute(tx, &[&tids]));
        let answer = |value: Option<bool>| match value {
            Some(true) => Due::Yes,
            Some(false) => Due::WithoutValue,
            None => Due::No,
        };
        rows.iter()
            .filter_map(|row| Some((row.tid(1)?, answer(row.get(2)))))
            .collect()
    }
}

fn is_volatile(tx: &Tx, leaf: &LeafName, target: &Target, value: &Value) -> bool {
    let Recipe::Expression(text) = &value.recipe else {
        return false;
    };
    let (table, alias) = (leaf.quoted(), quote(&target.table_name));
    let sql = format!("SELECT ({text}\n) FROM ONLY {table} AS {alias}");
    Statement::prepare(tx, &sql, &[]).is_volatile()
}

/// `IS NULL` would also be true of a composite value whose fields are all NULL, which must not be overwritten.
const IS_NULL: &str = "IS NOT DISTINCT FROM NULL";
const ONE_OF: &str = "OPERATOR(pg_catalog.=) ANY";

/// The pieces that the statements are made of, quoted.
struct Sql {
    table: String,
    alias: String,
    column: String,
    value: String,
    filter: Option<String>,
    /// Leaves out rows whose expression is NULL, which need no new version. `None` for a volatile expression, which may
    /// be evaluated only once.
    has_value: Option<String>,
}

impl Sql {
    fn new(leaf: &LeafName, target: &Target, value: &Value, volatile: bool) -> Self {
        let (value_sql, has_value) = match &value.recipe {
            Recipe::Constant(_) => ("$2".to_owned(), None),
            Recipe::Expression(text) => {
                let value = format!("({text}\n)");
                let has_value = (!volatile).then(|| format!("{value} IS DISTINCT FROM NULL"));
                (value, has_value)
            }
        };
        Sql {
            table: leaf.quoted(),
            alias: quote(&target.table_name),
            column: quote(&target.column),
            value: value_sql,
            filter: value.filter.as_ref().map(|filter| format!("({filter}\n)")),
            has_value,
        }
    }

    /// The condition that a row is to be filled.
    fn is_due(&self) -> String {
        let is_null = self.is_null();
        let and = |condition: &Option<String>| {
            let condition = condition.as_ref();
            condition.map_or_else(String::new, |condition| format!(" AND {condition}"))
        };
        let (filter, has_value) = (and(&self.filter), and(&self.has_value));
        format!("{is_null}{filter}{has_value}")
    }

    /// The condition that a row has no value yet.
    fn is_null(&self) -> String {
        format!("{}.{} {IS_NULL}", self.alias, self.column)
    }

    /// An UPDATE of the rows at these places that meet this condition.
    fn update(&self, places: &str, condition: &str, counts_refused: bool) -> String {
        let (table, alias, column, value) = (&self.table, &self.alias, &self.column, &self.value);
        let update = format!(
            "UPDATE ONLY {table} AS {alias} SET {column} = {value} \
             WHERE {alias}.ctid {ONE_OF} {places} AND {condition}"
        );
        if !counts_refused {
            return update;
        }
        format!(
            "WITH updated AS ({update} RETURNING {alias}.{column} {IS_NULL} AS refused) \
             SELECT pg_catalog.count(*) FILTER (WHERE NOT refused), \
             pg_catalog.count(*) FILTER (WHERE refused) FROM updated"
        )
    }

    /// The places of those rows that nobody holds.
    fn unlocked(&self, key: bool) -> String {
        let (table, alias, is_due) = (&self.table, &self.alias, self.is_due());
        let strength = if key { "UPDATE" } else { "NO KEY UPDATE" };
        format!(
            "(ARRAY(SELECT {alias}.ctid FROM ONLY {table} AS {alias} \
             WHERE {alias}.ctid {ONE_OF} ($1) AND {is_due} FOR {strength} SKIP LOCKED))"
        )
    }

    /// A query of the rows that are NULL: to be filled, without a value (`false`), or left out by the filter (NULL).
    fn probe(&self) -> String {
        let (table, alias, column) = (&self.table, &self.alias, &self.column);
        let filter = self.filter.as_deref().unwrap_or("true");
        let has_value = self.has_value.as_deref().unwrap_or("true");
        format!(
            "SELECT {alias}.ctid, CASE WHEN {filter} THEN {has_value} END FROM ONLY {table} AS {alias} \
             WHERE {alias}.ctid {ONE_OF} ($1) AND {alias}.{column} {IS_NULL}"
        )
    }
}

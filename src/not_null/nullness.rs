//! What the catalogs say of the NULLs of a column, and the marks that a CALL leaves there for the next.

use pgrx::pg_sys;
use planner::not_null_step::{Check, Native, NotNull, Nullness};

use crate::catalog::attribute::Attribute;
use crate::catalog::relation::Relation;
use crate::error::Error;
use crate::pg::tx::Tx;

/// This comment on a constraint tells a later CALL that an interrupted one has left it.
const MARK: &str = "added by safe_set_not_null, which is not done yet";
/// Most bytes of a name: `NAMEDATALEN` - 1.
const LONGEST_NAME: usize = 63;

/// What this PostgreSQL can do.
pub const NATIVE: Native = if pg_sys::PG_VERSION_NUM >= 180_000 {
    Native::Constraint
} else {
    Native::Mark
};

/// The column of that name.
///
/// # Errors
/// [`Error::NoColumn`].
pub fn require_attribute(tx: &Tx, relation: &Relation, column: &str) -> Result<Attribute, Error> {
    Attribute::find(tx, relation.oid, column).ok_or_else(|| Error::NoColumn {
        table: relation.name.clone(),
        column: column.into(),
        qualified: relation.quoted(),
    })
}

/// Marks a constraint as one that must not remain in the end. Both names are quoted already.
pub fn mark(tx: &Tx, constraint: &str, table: &str) {
    tx.execute(
        &format!("COMMENT ON CONSTRAINT {constraint} ON {table} IS '{MARK}'"),
        &[],
    );
}

/// Removes the mark: the constraint is to remain. Both names are quoted already.
pub fn unmark(tx: &Tx, constraint: &str, table: &str) {
    tx.execute(
        &format!("COMMENT ON CONSTRAINT {constraint} ON {table} IS NULL"),
        &[],
    );
}

/// A name that no constraint of the table has.
///
/// The number in front keeps names apart that are cut off at the same place.
pub fn free_name(tx: &Tx, table: &Relation, number: i16, column: &str) -> String {
    const TAKEN: &str =
        "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1 AND conname = $2::name)";
    let is_taken = |name: &str| {
        let taken = tx.catalog_value(TAKEN, &[&table.oid, &name]);
        taken.unwrap_or(false)
    };
    let mut prefix = format!("safe_set_not_null_{number}");
    loop {
        let mut name = format!("{prefix}_{column}");
        while name.len() > LONGEST_NAME {
            name.pop();
        }
        if !is_taken(&name) {
            return name;
        }
        prefix.push('_');
    }
}

/// What the catalogs say of the NULLs of one table alone.
pub fn of(tx: &Tx, relation: &Relation, column: &str, attribute: &Attribute) -> Nullness {
    const CONSTRAINTS: &str = "
        SELECT conname::text, contype::text, convalidated,
               coalesce(obj_description(oid, 'pg_constraint') = $5, false)
        FROM pg_constraint
        WHERE conrelid = $1 AND conkey = ARRAY[$2]
        AND (contype = 'n'
             OR contype = 'c' AND pg_get_expr(conbin, conrelid) = format('(%I IS %s)', $3::text, $4::text))
        ORDER BY convalidated DESC, conname";
    let proof = if attribute.column_type.is_row(tx) {
        "DISTINCT FROM NULL"
    } else {
        "NOT NULL"
    };
    let (oid, number) = (relation.oid, attribute.number);
    let rows = tx.catalog(CONSTRAINTS, &[&oid, &number, &column, &proof, &MARK]);
    let mut state = Nullness {
        not_null: if attribute.is_not_null {
            NotNull::Valid
        } else {
            NotNull::No
        },
        check: None,
        helper: None,
    };
    for row in rows.iter() {
        let name: String = row.get(1).unwrap_or_default();
        let is_check = row.get::<String>(2).as_deref() == Some("c");
        let valid: bool = row.get(3).unwrap_or(false);
        let ours: bool = row.get(4).unwrap_or(false);
        match (is_check, valid) {
            (true, valid) => {
                if ours {
                    state.helper.get_or_insert_with(|| name.clone());
                }
                state.check.get_or_insert(Check { name, valid });
            }
            (false, false) => state.not_null = NotNull::NotValid { constraint: name },
            (false, true) => {}
        }
    }
    state
}

pub fn is_marked(tx: &Tx, relation: &Relation, constraint: &str) -> bool {
    const MARKED: &str = "
        SELECT obj_description(oid, 'pg_constraint') = $3 FROM pg_constraint
        WHERE conrelid = $1 AND conname = $2::name";
    tx.catalog_value(MARKED, &[&relation.oid, &constraint, &MARK])
        .unwrap_or(false)
}

/// Whether a scan would see all rows: the owner may have revoked its own right to read, and policies may hide rows.
pub fn can_be_read(tx: &Tx, relation: &Relation) -> bool {
    const READABLE: &str =
        "SELECT has_table_privilege($1, 'SELECT') AND NOT row_security_active($1)";
    relation.access_method.as_deref() == Some("heap")
        && tx
            .catalog_value(READABLE, &[&relation.oid])
            .unwrap_or(false)
}

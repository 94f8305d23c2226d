//! Makes a column NOT NULL without a long lock.
//!
//! SET NOT NULL alone reads the whole table under an ACCESS EXCLUSIVE lock, unless a valid CHECK proves that no row is
//! NULL (`NotNullImpliedByRelConstraints` in PostgreSQL's `tablecmds.c`). Such a CHECK can be added without reading
//! anything and then validated under a lock that lets reads and writes through. From PostgreSQL 18 on, NOT NULL is a
//! constraint that can be added and validated in the same way.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::ddl::{self, Locks};
use crate::error::Error;
use crate::look::{Found, look};
use crate::pg::lock::TableLock;
use crate::pg::message;
use crate::pg::spi::{self, argument, quote};
use crate::pg::transaction::{attempt_except, commit_after};
use crate::pg::value::ColumnType;
use crate::relation::{Member, Relation, require_alterable, tree};
use crate::step::{Check, Native, NotNull, Nullness, Step};

/// By this comment a later CALL knows the constraints that an interrupted one has left.
const MARK: &str = "added by safe_set_not_null, which is not done yet";
/// More steps than this no table needs.
const MOST_STEPS: u32 = 10;
/// How often the tables of a tree are gone over, while new ones are being attached.
const MOST_LOOKS: u32 = 5;
/// Validating a smaller table is not worth a message: 64 MB.
const WORTH_A_NOTICE: i64 = 8192;
/// Most bytes of a name: `NAMEDATALEN` - 1.
const LONGEST_NAME: usize = 63;

const NATIVE: Native = if pg_sys::PG_VERSION_NUM >= 180_000 {
    Native::Constraint
} else {
    Native::Mark
};

/// A column of a table, and of all tables below it, that is to be NOT NULL.
pub struct Request {
    table: pg_sys::Oid,
    table_name: String,
    column: String,
    number: i16,
}

impl Request {
    /// Checks that the current user may do it, before anything is touched.
    ///
    /// # Errors
    /// Those of [`require_alterable`], [`Error::NoColumn`], [`Error::SystemColumn`].
    pub fn prove(table: pg_sys::Oid, column: &str) -> Result<Self, Error> {
        let relation = require_alterable(table)?;
        let attribute = Attribute::look_up(&relation, column)?;
        if attribute.number < 1 {
            return Err(Error::SystemColumn {
                column: column.into(),
            });
        }
        Ok(Request {
            table,
            table_name: relation.name,
            column: column.into(),
            number: attribute.number,
        })
    }

    /// The table, the number of the column, and the name of the table.
    pub fn what(&self) -> (pg_sys::Oid, i16, &str) {
        (self.table, self.number, &self.table_name)
    }
}

/// Takes the column from wherever an earlier CALL has left it to NOT NULL.
///
/// # Errors
/// [`Error::StillNull`], with nothing changed or what was added taken back; [`Error::LockNotAvailable`], with the steps
/// before it kept.
pub fn run(request: &Request) -> Result<(), Error> {
    let column = &request.column;
    let table = &request.table_name;
    if commit_after(|| request.is_done())? {
        message::notice(
            format!("column \"{column}\" of table \"{table}\" is NOT NULL already"),
            None,
        );
        return Ok(());
    }
    let found = request.look_for_nulls()?;
    if found.nulls > 0 {
        return Err(request.still_null(&found));
    }
    for _ in 0..MOST_LOOKS {
        if request.go_over(&found)? {
            message::notice(
                format!("column \"{column}\" of table \"{table}\" is NOT NULL now"),
                None,
            );
            return Ok(());
        }
    }
    Err(Error::TreeKeepsChanging {
        table: table.clone(),
    })
}

impl Request {
    /// The table that was named comes first.
    fn members(&self) -> Vec<Member> {
        tree(self.table)
    }

    fn is_done(&self) -> Result<bool, Error> {
        for member in self.members() {
            let relation = Relation::look_up(member.oid)?;
            if nullness(&relation, &self.column)?.next(NATIVE) != Step::Done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A quick look at the tables of which nothing is proven yet.
    fn look_for_nulls(&self) -> Result<Found, Error> {
        let unproven = commit_after(|| {
            let mut unproven = vec![];
            for member in self.members().iter().filter(|member| member.has_rows) {
                let relation = Relation::look_up(member.oid)?;
                let state = nullness(&relation, &self.column)?;
                let proven = matches!(state.next(NATIVE), Step::SetNotNull { .. } | Step::Done);
                if !proven && can_be_read(&relation) {
                    unproven.push(relation);
                }
            }
            Ok(unproven)
        })?;
        let mut found = Found::default();
        for relation in &unproven {
            look(relation, &self.column, &mut found)?;
        }
        Ok(found)
    }

    fn still_null(&self, found: &Found) -> Error {
        Error::StillNull {
            table: self.table_name.clone(),
            column: self.column.clone(),
            rows: found.nulls,
            maybe_more: found.maybe_more,
        }
    }

    /// Table by table, then the one that was named; `false` if another table has joined the tree meanwhile.
    fn go_over(&self, found: &Found) -> Result<bool, Error> {
        let members = commit_after(|| Ok(self.members()))?;
        let is_tree = members.len() > 1;
        if is_tree && NATIVE == Native::Constraint {
            // Added to the whole tree at once, the constraint is an inherited one in the tables below.
            let state = commit_after(|| self.state(self.table))?;
            if state.not_null == NotNull::No {
                self.add_not_null()?;
            }
        }
        for member in members.iter().skip(1).filter(|member| member.has_rows) {
            match self.settle(member.oid, found) {
                // A partition may go; what matters is the table that was named.
                Err(Error::NoTable { .. }) => {}
                result => {
                    result?;
                }
            }
        }
        self.settle(self.table, found)
    }

    fn state(&self, table: pg_sys::Oid) -> Result<Nullness, Error> {
        nullness(&Relation::look_up(table)?, &self.column)
    }

    /// Takes one table from step to step until it is done; `false` if it has to wait for a table below it.
    fn settle(&self, table: pg_sys::Oid, found: &Found) -> Result<bool, Error> {
        for _ in 0..MOST_STEPS {
            let (relation, state) = commit_after(|| {
                let relation = Relation::look_up(table)?;
                let state = nullness(&relation, &self.column)?;
                Ok((relation, state))
            })?;
            let step = match state.next(NATIVE) {
                // It has no rows of its own to be proven.
                Step::AddCheck if relation.kind == "p" => Step::SetNotNull { helper: None },
                step => step,
            };
            let settled = match &step {
                Step::Done => return Ok(true),
                Step::AddCheck => self.add_check(&relation)?,
                Step::AddNotNull => self.add_not_null()?,
                Step::Validate { constraint } => {
                    self.validate(&relation, &state, constraint, found)?;
                    true
                }
                Step::SetNotNull { helper } => self.set_not_null(&relation, helper.as_deref())?,
                Step::DropHelper { helper } => self.drop_constraint(&relation, helper)?,
            };
            if !settled {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Adds a CHECK to one table alone; those below it get their own.
    fn add_check(&self, relation: &Relation) -> Result<bool, Error> {
        self.alter(relation, |table| {
            let number = Attribute::look_up(table, &self.column)?.number;
            let helper = quote(&helper_name(number, &self.column));
            let (name, column) = (table.quoted(), quote(&self.column));
            // IS DISTINCT FROM NULL is what NOT NULL means also for composite types, of which IS NOT NULL asks
            // something else; for all other types PostgreSQL stores the one as the other.
            execute(&format!(
                "ALTER TABLE ONLY {name} ADD CONSTRAINT {helper} \
                 CHECK ({column} IS DISTINCT FROM NULL) NO INHERIT NOT VALID"
            ));
            mark(&helper, &name);
            Ok(true)
        })
    }

    /// Adds a NOT NULL that is not valid yet to the named table and all tables below it.
    fn add_not_null(&self) -> Result<bool, Error> {
        let root = commit_after(|| Relation::look_up(self.table))?;
        self.alter_tree(&root, |table| {
            let (name, column) = (table.quoted(), quote(&self.column));
            execute(&format!(
                "ALTER TABLE {name} ADD NOT NULL {column} NOT VALID"
            ));
            if let NotNull::NotValid { constraint } = nullness(table, &self.column)?.not_null {
                mark(&quote(&constraint), &name);
            }
            Ok(true)
        })
    }

    /// Has all rows looked at while others read and write them.
    fn validate(
        &self,
        relation: &Relation,
        state: &Nullness,
        constraint: &str,
        found: &Found,
    ) -> Result<(), Error> {
        say_validation(relation, found);
        let valid = self.with_locks(relation, TableLock::ShareUpdateExclusive, |table| {
            let (name, quoted) = (table.quoted(), quote(constraint));
            let violations = [
                PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
                PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
            ];
            let validate = format!("ALTER TABLE {name} VALIDATE CONSTRAINT {quoted}");
            let valid = attempt_except(&violations, || execute(&validate)).is_ok();
            if valid && state.helper.as_deref() != Some(constraint) && is_marked(table, constraint)
            {
                execute(&format!("COMMENT ON CONSTRAINT {quoted} ON {name} IS NULL"));
            }
            Ok(valid)
        })?;
        if valid {
            return Ok(());
        }
        self.take_back(relation, state, constraint)?;
        let mut found = Found::default();
        look(relation, &self.column, &mut found)?;
        found.nulls = found.nulls.max(1);
        Err(self.still_null(&found))
    }

    /// Drops the constraint that did not hold, if it was added by a CALL like this one.
    fn take_back(
        &self,
        relation: &Relation,
        state: &Nullness,
        constraint: &str,
    ) -> Result<(), Error> {
        if state.helper.as_deref() == Some(constraint) {
            return self.drop_constraint(relation, constraint).map(|_| ());
        }
        let root = commit_after(|| Relation::look_up(self.table))?;
        let added = commit_after(|| {
            let not_null = nullness(&root, &self.column)?.not_null;
            Ok(match not_null {
                NotNull::NotValid { constraint } if is_marked(&root, &constraint) => {
                    Some(constraint)
                }
                _ => None,
            })
        })?;
        if let Some(added) = added {
            self.alter_tree(&root, |table| {
                let (name, added) = (table.quoted(), quote(&added));
                execute(&format!("ALTER TABLE {name} DROP CONSTRAINT {added}"));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Sets NOT NULL and drops the CHECK that has proven it; `false` if a table below is not proven.
    fn set_not_null(&self, relation: &Relation, helper: Option<&str>) -> Result<bool, Error> {
        self.alter_tree(relation, |table| {
            for member in tree(table.oid)
                .iter()
                .skip(1)
                .filter(|member| member.has_rows)
            {
                if self.state(member.oid)?.not_null != NotNull::Valid {
                    return Ok(false);
                }
            }
            let (name, column) = (table.quoted(), quote(&self.column));
            // The column comes first: dropped before it, in the same statement even, the CHECK would prove nothing.
            execute(&format!(
                "ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL"
            ));
            if let Some(helper) = helper {
                drop_from(table, helper);
            }
            Ok(true)
        })
    }

    fn drop_constraint(&self, relation: &Relation, constraint: &str) -> Result<bool, Error> {
        self.alter(relation, |table| {
            drop_from(table, constraint);
            Ok(true)
        })
    }

    /// Alters one table alone. `work` is given the table as it is when it is locked.
    fn alter<T>(
        &self,
        relation: &Relation,
        work: impl Fn(&Relation) -> Result<T, Error>,
    ) -> Result<T, Error> {
        run_on(relation, &[relation.oid], TableLock::AccessExclusive, work)
    }

    /// Alters a table and all tables below it.
    fn alter_tree<T>(
        &self,
        relation: &Relation,
        work: impl Fn(&Relation) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.with_locks(relation, TableLock::AccessExclusive, work)
    }

    fn with_locks<T>(
        &self,
        relation: &Relation,
        lock: TableLock,
        work: impl Fn(&Relation) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let tables: Vec<_> = commit_after(|| Ok(tree(relation.oid)))?
            .iter()
            .map(|member| member.oid)
            .collect();
        run_on(relation, &tables, lock, work)
    }
}

fn run_on<T>(
    relation: &Relation,
    tables: &[pg_sys::Oid],
    lock: TableLock,
    work: impl Fn(&Relation) -> Result<T, Error>,
) -> Result<T, Error> {
    let locks = Locks {
        table_name: &relation.name,
        tables,
        lock,
    };
    ddl::run(&locks, || work(&Relation::look_up(relation.oid)?))
}

fn execute(sql: &str) {
    spi::execute(sql, &[]);
}

fn drop_from(table: &Relation, constraint: &str) {
    let (name, constraint) = (table.quoted(), quote(constraint));
    execute(&format!(
        "ALTER TABLE ONLY {name} DROP CONSTRAINT {constraint}"
    ));
}

/// Both names are quoted already.
fn mark(constraint: &str, table: &str) {
    execute(&format!(
        "COMMENT ON CONSTRAINT {constraint} ON {table} IS '{MARK}'"
    ));
}

fn say_validation(relation: &Relation, found: &Found) {
    if relation.blocks < WORTH_A_NOTICE {
        return;
    }
    let megabytes = relation.blocks * i64::from(pg_sys::BLCKSZ) / (1024 * 1024);
    let speed = found.blocks as f64 / found.time.as_secs_f64().max(1e-3);
    let about = if found.blocks > 0 {
        format!(", about {:.0} s", (relation.blocks as f64 / speed).ceil())
    } else {
        String::new()
    };
    message::notice(
        format!(
            "validating \"{}\": {megabytes} MB to read{about}; reads and writes go on",
            relation.name
        ),
        None,
    );
}

/// The number in front keeps names apart that are cut off at the same place.
fn helper_name(number: i16, column: &str) -> String {
    let mut name = format!("safe_set_not_null_{number}_{column}");
    while name.len() > LONGEST_NAME {
        name.pop();
    }
    name
}

/// What the catalogs say of a column, by its name.
struct Attribute {
    number: i16,
    column_type: ColumnType,
    not_null: bool,
}

impl Attribute {
    fn look_up(relation: &Relation, column: &str) -> Result<Self, Error> {
        const ATTRIBUTE: &str = "
            SELECT attnum, atttypid, atttypmod, attnotnull FROM pg_attribute
            WHERE attrelid = $1 AND attname = $2::name AND NOT attisdropped";
        let rows = spi::catalog(ATTRIBUTE, &[argument(relation.oid), argument(column)]);
        rows.first()
            .and_then(|row| {
                Some(Attribute {
                    number: row.get(1)?,
                    column_type: ColumnType {
                        oid: row.get(2)?,
                        modifier: row.get(3)?,
                    },
                    not_null: row.get(4)?,
                })
            })
            .ok_or_else(|| Error::NoColumn {
                table: relation.name.clone(),
                column: column.into(),
            })
    }
}

/// What the catalogs say of the NULLs of one table alone.
fn nullness(relation: &Relation, column: &str) -> Result<Nullness, Error> {
    const CONSTRAINTS: &str = "
        SELECT conname::text, contype::text, convalidated,
               coalesce(obj_description(oid, 'pg_constraint') = $5, false)
        FROM pg_constraint
        WHERE conrelid = $1 AND conkey = ARRAY[$2]
        AND (contype = 'n'
             OR contype = 'c' AND pg_get_expr(conbin, conrelid) = format('(%I IS %s)', $3::text, $4::text))
        ORDER BY convalidated DESC, conname";
    let attribute = Attribute::look_up(relation, column)?;
    let proof = if attribute.column_type.is_row() {
        "DISTINCT FROM NULL"
    } else {
        "NOT NULL"
    };
    let rows = spi::catalog(
        CONSTRAINTS,
        &[
            argument(relation.oid),
            argument(attribute.number),
            argument(column),
            argument(proof),
            argument(MARK),
        ],
    );
    let mut state = Nullness {
        not_null: if attribute.not_null {
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
    Ok(state)
}

fn is_marked(relation: &Relation, constraint: &str) -> bool {
    const MARKED: &str = "
        SELECT obj_description(oid, 'pg_constraint') = $3 FROM pg_constraint
        WHERE conrelid = $1 AND conname = $2::name";
    spi::catalog(
        MARKED,
        &[argument(relation.oid), argument(constraint), argument(MARK)],
    )
    .first()
    .and_then(|row| row.get(1))
    .unwrap_or(false)
}

/// Whether a look would see all rows: the owner may have given the right to read away, and policies may hide rows.
fn can_be_read(relation: &Relation) -> bool {
    const READABLE: &str =
        "SELECT has_table_privilege($1, 'SELECT') AND NOT row_security_active($1)";
    relation.access_method.as_deref() == Some("heap")
        && spi::catalog(READABLE, &[argument(relation.oid)])
            .first()
            .and_then(|row| row.get(1))
            .unwrap_or(false)
}

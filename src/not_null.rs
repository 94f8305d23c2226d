//! Makes a column NOT NULL without a long lock.
//!
//! SET NOT NULL alone reads the whole table under an ACCESS EXCLUSIVE lock, unless a valid CHECK proves that no row is
//! NULL (`NotNullImpliedByRelConstraints` in PostgreSQL's `tablecmds.c`). Such a CHECK can be added without reading
//! anything and then validated under a lock that lets reads and writes through. From PostgreSQL 18 on, NOT NULL is a
//! constraint that can be added and validated in the same way.

use std::time::Instant;

use pgrx::{PgSqlErrorCode, pg_sys};
use planner::not_null_step::{Check, Native, NotNull, Nullness, Step};

use crate::ddl::{self, Locks};
use crate::error::{Change, Error};
use crate::job::lock_column;
use crate::null_scan::{Found, scan};
use crate::pg::lock::{ColumnLock, TableLock};
use crate::pg::spi::{self, argument, quote};
use crate::pg::transaction::{attempt_except, commit_after};
use crate::pg::value::ColumnType;
use crate::pg::{message, usage};
use crate::relation::{Member, Relation, require_alterable, require_owned, tree, tree_oids};

/// By this comment a later CALL knows the constraints that an interrupted one has left.
const MARK: &str = "added by safe_set_not_null, which is not done yet";
/// More steps than this no table needs.
const MOST_STEPS: u32 = 10;
/// How often the tables of a tree are gone over, while new ones are being attached.
const MOST_LOOKS: u32 = 5;
/// Validating a smaller table is not worth a message: 64 MB.
const WORTH_A_NOTICE: u32 = 8192;
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
    let say = |what| {
        message::notice(
            format!("column \"{column}\" of table \"{table}\" is {what}"),
            None,
        )
    };
    if request.read(|| request.is_done())? {
        say("already NOT NULL, skipping");
        return Ok(());
    }
    let found = request.look_for_nulls()?;
    if found.nulls > 0 {
        return Err(request.give_up(&found));
    }
    for _ in 0..MOST_LOOKS {
        if request.go_over(&found)? {
            say("now NOT NULL");
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
            if self.state(member.oid)?.next(NATIVE) != Step::Done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn state(&self, table: pg_sys::Oid) -> Result<Nullness, Error> {
        let relation = Relation::look_up(table)?;
        let attribute = Attribute::look_up(&relation, &self.column)?;
        Ok(nullness(&relation, &self.column, &attribute))
    }

    /// A quick look at the tables of which nothing is proven yet.
    fn look_for_nulls(&self) -> Result<Found, Error> {
        let unproven = self.read(|| {
            let mut unproven = vec![];
            for member in self.members().iter().filter(|member| member.has_rows) {
                let proven = matches!(
                    self.state(member.oid)?.next(NATIVE),
                    Step::SetNotNull { .. } | Step::Done
                );
                if !proven {
                    unproven.push(Relation::look_up(member.oid)?);
                }
            }
            Ok(unproven)
        })?;
        self.look_at(&unproven)
    }

    fn look_at(&self, relations: &[Relation]) -> Result<Found, Error> {
        let mut found = Found::default();
        for relation in relations {
            if commit_after(|| Ok(can_be_read(relation)))? {
                scan(relation, &self.column, &mut found)?;
            } else {
                found.maybe_more = true;
            }
        }
        Ok(found)
    }

    /// Takes back what this CALL, or an interrupted one before it, has added in vain.
    fn give_up(&self, found: &Found) -> Error {
        let left = match self.take_back() {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        Error::StillNull {
            table: self.table_name.clone(),
            qualified: commit_after(|| Ok(Relation::look_up(self.table)?.quoted()))
                .unwrap_or_default(),
            column: self.column.clone(),
            rows: found.nulls.max(1),
            maybe_more: found.maybe_more || found.nulls == 0,
            left,
        }
    }

    fn take_back(&self) -> Result<(), Error> {
        for member in self.read(|| Ok(self.members()))? {
            let (relation, state) = self.read(|| {
                let relation = Relation::look_up(member.oid)?;
                Ok((relation, self.state(member.oid)?))
            })?;
            if let Some(helper) = state.helper {
                alter(&relation, |table| {
                    drop_constraint(table, &helper, "ONLY ");
                    Ok(())
                })?;
            }
            let NotNull::NotValid { constraint } = state.not_null else {
                continue;
            };
            if member.oid == self.table && self.read(|| Ok(is_marked(&relation, &constraint)))? {
                alter_tree(&relation, |table| {
                    drop_constraint(table, &constraint, "");
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Table by table, children before their parents and the one that was named last; `false` if another table has joined the tree meanwhile.
    fn go_over(&self, found: &Found) -> Result<bool, Error> {
        let (members, state) = self.read(|| Ok((self.members(), self.state(self.table)?)))?;
        let is_tree = members.len() > 1;
        if is_tree && NATIVE == Native::Constraint && state.not_null == NotNull::No {
            // Added to the whole tree at once, the constraint is an inherited one in the tables below.
            Settling::begin(self, self.table, found)?.add_not_null()?;
        }
        for member in members
            .iter()
            .skip(1)
            .rev()
            .filter(|member| member.has_rows)
        {
            match Settling::begin(self, member.oid, found).and_then(|settling| settling.end()) {
                // A partition may go; what matters is the table that was named.
                Ok(true) | Err(Error::NoTable { .. }) => {}
                result => return result,
            }
        }
        Settling::begin(self, self.table, found)?.end()
    }

    /// Reads the catalogs. Some of PostgreSQL's functions lock the table they are asked about for that.
    fn read<T>(&self, work: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        let locks = Locks {
            table_name: &self.table_name,
            tables: &[self.table],
            lock: None,
            permit: require_owned,
        };
        ddl::run(&locks, work)
    }
}

/// One table on its way from step to step.
struct Settling<'a> {
    request: &'a Request,
    found: &'a Found,
    relation: Relation,
    number: i16,
    _lock: Option<ColumnLock>,
}

/// What became of a step.
enum Taken {
    /// It was taken.
    Yes,
    /// Something has changed since it was decided on, so that another step is due.
    No,
    /// A table below is not done.
    NotYet,
}

impl<'a> Settling<'a> {
    fn begin(request: &'a Request, table: pg_sys::Oid, found: &'a Found) -> Result<Self, Error> {
        request.read(|| {
            let relation = Relation::look_up(table)?;
            let number = Attribute::look_up(&relation, &request.column)?.number;
            let is_root = table == request.table;
            let lock = match is_root {
                true => None,
                false => Some(lock_column(table, number, &relation.name, &request.column)?),
            };
            Ok(Settling {
                request,
                found,
                relation,
                number: if is_root { request.number } else { number },
                _lock: lock,
            })
        })
    }

    /// Takes step after step until the table is done; `false` if it has to wait for a table below it.
    fn end(&self) -> Result<bool, Error> {
        for _ in 0..MOST_STEPS {
            let step = self.request.read(|| self.due(&self.relation))?.0;
            let taken = match &step {
                Step::Done => return Ok(true),
                Step::AddCheck => self.add_check()?,
                Step::AddNotNull => self.add_not_null()?,
                Step::Validate { constraint } => self.validate(constraint)?,
                Step::SetNotNull { helper } => self.set_not_null(helper.as_deref())?,
                Step::DropHelper { helper } => alter(&self.relation, |table| {
                    drop_constraint(table, helper, "ONLY ");
                    Ok(Taken::Yes)
                })?,
            };
            if matches!(taken, Taken::NotYet) {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// The step that is due, and the state that says so.
    fn due(&self, relation: &Relation) -> Result<(Step, Nullness), Error> {
        let attribute = Attribute::look_up(relation, &self.request.column)?;
        if attribute.number != self.number {
            return Err(Error::ColumnChanged {
                table: relation.name.clone(),
                column: self.request.column.clone(),
                change: Change::Replaced,
            });
        }
        let state = nullness(relation, &self.request.column, &attribute);
        let step = match state.next(NATIVE) {
            // It has no rows of its own to be proven.
            Step::AddCheck if relation.kind == "p" => Step::SetNotNull { helper: None },
            step => step,
        };
        Ok((step, state))
    }

    fn is_due(&self, table: &Relation, step: &Step) -> Result<bool, Error> {
        Ok(self.due(table)?.0 == *step)
    }

    /// Adds a CHECK to one table alone; those below it get their own.
    fn add_check(&self) -> Result<Taken, Error> {
        alter(&self.relation, |table| {
            if !self.is_due(table, &Step::AddCheck)? {
                return Ok(Taken::No);
            }
            let column = &self.request.column;
            let helper = quote(&free_name(table, self.number, column));
            let (name, column) = (table.quoted(), quote(column));
            // IS DISTINCT FROM NULL is what NOT NULL means also for composite types, of which IS NOT NULL asks
            // something else; for all other types PostgreSQL stores the one as the other.
            execute(&format!(
                "ALTER TABLE ONLY {name} ADD CONSTRAINT {helper} \
                 CHECK ({column} IS DISTINCT FROM NULL) NO INHERIT NOT VALID"
            ));
            mark(&helper, &name);
            Ok(Taken::Yes)
        })
    }

    /// Adds a NOT NULL that is not valid yet to the table and all tables below it.
    fn add_not_null(&self) -> Result<Taken, Error> {
        alter_tree(&self.relation, |table| {
            if self.due(table)?.1.not_null != NotNull::No {
                return Ok(Taken::No);
            }
            let (name, column) = (table.quoted(), quote(&self.request.column));
            execute(&format!(
                "ALTER TABLE {name} ADD NOT NULL {column} NOT VALID"
            ));
            if let NotNull::NotValid { constraint } = self.due(table)?.1.not_null {
                mark(&quote(&constraint), &name);
            }
            Ok(Taken::Yes)
        })
    }

    /// Has all rows looked at while others read and write them.
    fn validate(&self, constraint: &str) -> Result<Taken, Error> {
        let step = Step::Validate {
            constraint: constraint.into(),
        };
        let is_helper = self
            .request
            .read(|| Ok(self.due(&self.relation)?.1.helper))?;
        let is_helper = is_helper.as_deref() == Some(constraint);
        let validate = |table: &Relation| {
            if !self.is_due(table, &step)? {
                return Ok(Some(Taken::No));
            }
            let began = Instant::now();
            let is_big = say_validation(table, &self.request.column, self.found);
            let (name, quoted) = (table.quoted(), quote(constraint));
            let validate = format!("ALTER TABLE {name} VALIDATE CONSTRAINT {quoted}");
            let violations = [
                PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
                PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
            ];
            if attempt_except(&violations, || execute(&validate)).is_err() {
                return Ok(None);
            }
            if !is_helper && is_marked(table, constraint) {
                execute(&format!("COMMENT ON CONSTRAINT {quoted} ON {name} IS NULL"));
            }
            if is_big {
                let seconds = began.elapsed().as_secs_f64();
                message::notice(
                    format!(
                        "validated column \"{}\" of table \"{}\" in {seconds:.1} s",
                        self.request.column, table.name
                    ),
                    None,
                );
            }
            Ok(Some(Taken::Yes))
        };
        // The helper is not inherited: the tables below have nothing to do with it.
        let reach = if is_helper { Reach::Alone } else { Reach::Tree };
        let lock = TableLock::ShareUpdateExclusive;
        match run_on(&self.relation, reach, lock, validate)? {
            Some(taken) => Ok(taken),
            None => {
                let found = self.request.look_at(std::slice::from_ref(&self.relation))?;
                Err(self.request.give_up(&found))
            }
        }
    }

    /// Sets NOT NULL and drops the CHECK that has proven it.
    fn set_not_null(&self, helper: Option<&str>) -> Result<Taken, Error> {
        let step = Step::SetNotNull {
            helper: helper.map(Into::into),
        };
        alter_tree(&self.relation, |table| {
            if !self.is_due(table, &step)? {
                return Ok(Taken::No);
            }
            if !are_not_null_below(table, &self.request.column) {
                return Ok(Taken::NotYet);
            }
            let (name, column) = (table.quoted(), quote(&self.request.column));
            // The column comes first: dropped before it, in the same statement even, the CHECK would prove nothing.
            execute(&format!(
                "ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL"
            ));
            if let Some(helper) = helper {
                drop_constraint(table, helper, "ONLY ");
            }
            Ok(Taken::Yes)
        })
    }
}

/// How far a statement reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// One table.
    Alone,
    /// All tables below it as well.
    Tree,
}

/// Alters one table alone. `work` is given the table as it is when it is locked.
fn alter<T>(relation: &Relation, work: impl Fn(&Relation) -> Result<T, Error>) -> Result<T, Error> {
    run_on(relation, Reach::Alone, TableLock::AccessExclusive, work)
}

/// Alters a table and all tables below it.
fn alter_tree<T>(
    relation: &Relation,
    work: impl Fn(&Relation) -> Result<T, Error>,
) -> Result<T, Error> {
    run_on(relation, Reach::Tree, TableLock::AccessExclusive, work)
}

fn run_on<T>(
    relation: &Relation,
    reach: Reach,
    lock: TableLock,
    work: impl Fn(&Relation) -> Result<T, Error>,
) -> Result<T, Error> {
    let tables = match reach {
        Reach::Alone => vec![relation.oid],
        Reach::Tree => commit_after(|| Ok(tree_oids(relation.oid)))?,
    };
    let locks = Locks {
        table_name: &relation.name,
        tables: &tables,
        lock: Some(lock),
        permit: require_owned,
    };
    ddl::run(&locks, || work(&Relation::look_up(relation.oid)?))
}

fn execute(sql: &str) {
    spi::execute(sql, &[]);
}

/// `only` is "ONLY " for a constraint that the tables below do not have.
fn drop_constraint(table: &Relation, constraint: &str, only: &str) {
    let (name, constraint) = (table.quoted(), quote(constraint));
    execute(&format!(
        "ALTER TABLE {only}{name} DROP CONSTRAINT IF EXISTS {constraint}"
    ));
}

/// Both names are quoted already.
fn mark(constraint: &str, table: &str) {
    execute(&format!(
        "COMMENT ON CONSTRAINT {constraint} ON {table} IS '{MARK}'"
    ));
}

/// Says what a validation is about to read; `false` if that is not worth a message.
///
/// PostgreSQL tells nothing of a validation while it runs, so its length is foretold from the speed of the quick look.
fn say_validation(relation: &Relation, column: &str, found: &Found) -> bool {
    let blocks = relation.blocks();
    if blocks < WORTH_A_NOTICE {
        return false;
    }
    let size = usage::size_pretty(u64::from(blocks) * u64::from(pg_sys::BLCKSZ));
    let speed = found.blocks as f64 / found.time.as_secs_f64().max(1e-3);
    let about = if found.blocks > 0 {
        format!(" in about {:.0} s", (f64::from(blocks) / speed).ceil())
    } else {
        String::new()
    };
    message::notice_with(
        format!(
            "validating column \"{column}\" of table \"{}\"",
            relation.name
        ),
        Some(format!(
            "It reads {size}{about}, while others read and write."
        )),
        None,
    );
    true
}

/// A name that no constraint of the table has.
///
/// The number in front keeps names apart that are cut off at the same place.
fn free_name(table: &Relation, number: i16, column: &str) -> String {
    const TAKEN: &str =
        "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1 AND conname = $2::name)";
    let is_taken = |name: &str| {
        let rows = spi::catalog(TAKEN, &[argument(table.oid), argument(name)]);
        let taken: Option<bool> = rows.first().and_then(|row| row.get(1));
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

/// Whether every table with rows below this one is NOT NULL, and valid so.
fn are_not_null_below(table: &Relation, column: &str) -> bool {
    const PROVEN: &str = "
        SELECT NOT EXISTS (
            SELECT FROM pg_attribute a
            WHERE a.attrelid = ANY ($1) AND a.attname = $2::name AND NOT a.attisdropped
            AND (NOT a.attnotnull
                 OR EXISTS (SELECT FROM pg_constraint n
                            WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND NOT n.convalidated
                            AND a.attnum = ANY (n.conkey))))";
    let below: Vec<_> = tree(table.oid)
        .iter()
        .skip(1)
        .filter(|member| member.has_rows)
        .map(|member| member.oid)
        .collect();
    spi::catalog(PROVEN, &[argument(below), argument(column)])
        .first()
        .and_then(|row| row.get(1))
        .unwrap_or(false)
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
fn nullness(relation: &Relation, column: &str, attribute: &Attribute) -> Nullness {
    const CONSTRAINTS: &str = "
        SELECT conname::text, contype::text, convalidated,
               coalesce(obj_description(oid, 'pg_constraint') = $5, false)
        FROM pg_constraint
        WHERE conrelid = $1 AND conkey = ARRAY[$2]
        AND (contype = 'n'
             OR contype = 'c' AND pg_get_expr(conbin, conrelid) = format('(%I IS %s)', $3::text, $4::text))
        ORDER BY convalidated DESC, conname";
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
    state
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

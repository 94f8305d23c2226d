//! One leaf table, from its first window to its verified end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::batch::{self, Ground, Limits, Outcome};
use crate::error::Error;
use crate::filling::{Filling, LeafName, LeafStatements, Triggers};
use crate::job::{End, Job, Position, Progress};
use crate::pace::Pace;
use crate::pg::heap::{Column, Growth, Table};
use crate::pg::spi::{self, argument};
use crate::pg::transaction::{Attempt, commit_after};
use crate::pg::{horizon, message, settings as pg_settings, usage};
use crate::progress::Report;
use crate::settings;
use crate::sweep::{Blocks, FIRST_WINDOW, LARGEST_WINDOW, Method, Tid, Window};
use crate::target::Target;

/// In a smaller table there is nothing to gain by recycling pages; one pass has fewer batches.
const WORTH_RECYCLING: u32 = 32;
/// Rounds after the first: each begins with a look at the whole table for rows that are NULL still.
const MOST_ROUNDS: u32 = 5;
/// Up to so many rows left over are looked up one by one; more are worth another sweep.
const STRAGGLERS: i64 = 10_000;
/// How long a run goes on while locks of others keep it from filling any row.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait for a lock while others are held: rather undo the statement, and leave the row for later.
const BATCH_LOCK_WAIT: Duration = Duration::from_millis(10);
/// Locked rows that one round waits for, each for `row_lock_timeout`.
const WAITS_PER_ROUND: usize = 20;
/// How long one pass waits for the xmin horizon before it goes on without.
const HORIZON_PATIENCE: Duration = Duration::from_millis(100);
const HORIZON_POLL: Duration = Duration::from_millis(2);

/// What a leaf is filled with, and how far one batch may go.
pub struct Plan<'a> {
    /// The table and column.
    pub target: &'a Target,
    /// What goes into the column.
    pub filling: &'a Filling,
    /// Most rows of a batch.
    pub batch_size: usize,
    /// Where progress is stored.
    pub job: &'a Job,
}

/// One leaf table while it is filled.
pub struct Leaf<'a> {
    plan: &'a Plan<'a>,
    report: &'a mut Report,
    oid: pg_sys::Oid,
    prepared: Prepared,
    pace: Pace,
    recorded: Instant,
    /// Since then locks of others have kept every row from being filled.
    hindered_since: Option<Instant>,
    next_block: u32,
    window_size: u32,
    /// The last transaction whose dead row versions are to be pruned.
    last_id: Option<pg_sys::TransactionId>,
    /// The horizon was behind this transaction when the run last gave up waiting for it.
    stuck_at: Option<pg_sys::TransactionId>,
    holder_named: bool,
    refused: u64,
    /// The window before this one, whose free space is recorded once its dead versions can be pruned.
    finished: Option<(u32, u32)>,
}

/// What holds as long as the table keeps its file, its name and its column.
struct Prepared {
    file_node: pg_sys::Oid,
    name: LeafName,
    column: Column,
    growth: Growth,
    method: Method,
    statements: LeafStatements,
}

/// Why rows can be NULL still when a leaf is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    /// None is left to be filled; but rows whose expression is NULL do not count as such.
    NullExpression,
    /// An UPDATE was asked to fill them, and they are NULL still.
    Refused,
    /// Rows were filled in every round, and new ones were there in the next.
    New,
}

impl Leftover {
    fn hint(self) -> &'static str {
        match self {
            Leftover::NullExpression => {
                "The expression is NULL for them. Fill them in another way."
            }
            Leftover::Refused => {
                "A trigger or the expression keeps them so. Fill them in another way, or without the trigger."
            }
            Leftover::New => {
                "New ones keep coming: set a default on the column, or have the application give a value, then call again."
            }
        }
    }
}

/// The table is another one than before: its blocks have to be gone over from the first.
struct Rewritten;

impl<'a> Leaf<'a> {
    /// Looks at the leaf and prepares its statements; `None` if the job is done with it.
    ///
    /// # Errors
    /// [`Error::TableDropped`], [`Error::ColumnChanged`].
    pub fn open(
        plan: &'a Plan<'a>,
        report: &'a mut Report,
        oid: pg_sys::Oid,
    ) -> Result<Option<Self>, Error> {
        commit_after(|| {
            let Some(stored) = plan.job.position(oid) else {
                return Ok(None);
            };
            let table = open_table(plan, oid)?;
            let prepared = Prepared::look(plan, oid, &table)?;
            let mut leaf = Leaf {
                plan,
                report,
                oid,
                prepared,
                pace: Pace::default(),
                recorded: Instant::now(),
                hindered_since: None,
                next_block: 0,
                window_size: FIRST_WINDOW,
                last_id: None,
                stuck_at: None,
                holder_named: false,
                refused: 0,
                finished: None,
            };
            leaf.resume(&table, stored);
            Ok(Some(leaf))
        })
    }

    /// Goes on from the stored position if the table is still in the same file.
    fn resume(&mut self, table: &Table, stored: Position) {
        let same_file = stored.file_node == Some(self.prepared.file_node);
        if stored.file_node.is_some() && !same_file {
            self.say_rewritten();
        }
        self.start_at(table, if same_file { stored.next_block } else { 0 });
        self.report.blocks_done(u64::from(self.next_block));
    }

    fn start_at(&mut self, table: &Table, block: u32) {
        self.next_block = block;
        let position = Position {
            file_node: Some(self.prepared.file_node),
            next_block: block,
            end_block: table.blocks(),
        };
        self.plan.job.start_leaf(self.oid, &position);
    }

    fn say_rewritten(&self) {
        message::notice(
            format!(
                "table \"{}\" was rewritten since the last batch; starting over at its first block",
                self.prepared.name.name
            ),
            None,
        );
    }

    /// Fills the leaf and verifies it.
    ///
    /// # Errors
    /// [`Error::RowsLocked`], [`Error::TableDropped`], [`Error::ColumnChanged`], and PostgreSQL's own from triggers,
    /// checks or the expression.
    pub fn fill(mut self) -> Result<End, Error> {
        self.first_round()?;
        let end = self.verify()?;
        commit_after(|| {
            self.plan.job.finish_leaf(self.oid, end);
            Ok(())
        })?;
        Ok(end)
    }

    fn first_round(&mut self) -> Result<(), Error> {
        loop {
            let end = commit_after(|| Ok(open_table(self.plan, self.oid)?.blocks()))?;
            match self.sweep(Blocks::Range(self.next_block..end), true)? {
                Ok(_) => return Ok(()),
                Err(Rewritten) => self.start_over()?,
            }
        }
    }

    fn start_over(&mut self) -> Result<(), Error> {
        self.say_rewritten();
        commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            self.prepared = Prepared::look(self.plan, self.oid, &table)?;
            self.start_at(&table, 0);
            Ok(())
        })
    }

    /// Looks at the whole table with one snapshot, as often as needed, until no row is left to be filled.
    fn verify(&mut self) -> Result<End, Error> {
        let mut left_before = vec![];
        let mut round = 0;
        while round < MOST_ROUNDS {
            let (left, blocks) = self.unfilled()?;
            if left.is_empty() {
                return self.end(Leftover::NullExpression);
            }
            let (rows_before, refused_before) = (self.report.rows(), self.refused);
            let locked = self.another_round(blocks_of(&left, blocks))?;
            if self.report.rows() == rows_before && !locked.is_empty() {
                self.require_patience()?;
                usage::sleep(settings::row_lock_timeout());
                continue;
            }
            // Rows that are still where they were have been asked and refused; others were moved by an update
            // between the look and the sweep, or are new.
            let refused = self.refused > refused_before || left == left_before;
            if self.report.rows() == rows_before && refused {
                return self.end(Leftover::Refused);
            }
            left_before = left;
            round += 1;
        }
        self.end(Leftover::New)
    }

    /// Sweeps the blocks on which rows were left; returns the rows that are locked still.
    fn another_round(&mut self, blocks: Blocks) -> Result<Vec<Tid>, Error> {
        match self.sweep(blocks, false)? {
            Ok(busy) => self.wait_for(busy),
            Err(Rewritten) => {
                self.start_over()?;
                self.first_round()?;
                Ok(vec![])
            }
        }
    }

    /// Places of rows that are to be filled yet, up to a limit, and the number of blocks that the table has now.
    fn unfilled(&mut self) -> Result<(Vec<Tid>, u32), Error> {
        commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            self.prepared.require_same_column(self.plan, &table)?;
            self.prepared.follow_name(self.plan, self.oid, &table)?;
            let left = self.prepared.statements.unfilled(STRAGGLERS);
            Ok((left, table.blocks()))
        })
    }

    /// Fails once locks of others have kept every row from being filled for too long.
    fn require_patience(&mut self) -> Result<(), Error> {
        let since = *self.hindered_since.get_or_insert_with(Instant::now);
        if since.elapsed() < LOCK_PATIENCE {
            return Ok(());
        }
        let (rows, holders) = commit_after(|| {
            let _table = open_table(self.plan, self.oid)?;
            let rows = self.prepared.statements.count_unfilled();
            Ok((rows, self.plan.job.row_lock_holders(self.oid)))
        })?;
        Err(Error::RowsLocked {
            table: self.prepared.name.name.clone(),
            rows,
            holders,
        })
    }

    /// Tells how the leaf came out, with a WARNING for rows that are NULL still.
    fn end(&mut self, leftover: Leftover) -> Result<End, Error> {
        if leftover == Leftover::NullExpression && !self.plan.filling.can_be_null() {
            return Ok(End::Completed);
        }
        let rows = commit_after(|| {
            let _table = open_table(self.plan, self.oid)?;
            Ok(self.prepared.statements.count_unfilled())
        })?;
        if rows == 0 {
            return Ok(End::Completed);
        }
        message::warning(
            format!(
                "{rows} rows of table \"{}\" still have NULL in column \"{}\"",
                self.prepared.name.name, self.plan.target.column
            ),
            leftover.hint(),
        );
        Ok(End::Incomplete)
    }

    /// Goes over `blocks`, window by window. Returns the rows that other transactions held throughout.
    fn sweep(
        &mut self,
        mut blocks: Blocks,
        first_round: bool,
    ) -> Result<Result<Vec<Tid>, Rewritten>, Error> {
        let mut busy = vec![];
        loop {
            let blocks = blocks.next_window(self.window_size);
            let count = blocks.len() as u64;
            let method = if first_round {
                self.method()?
            } else {
                Method::OnePass
            };
            let mut window = Window::new(blocks, method);
            let Some((first, last)) = window.bounds() else {
                break;
            };
            if let Err(rewritten) = self.sweep_window(&mut window)? {
                return Ok(Err(rewritten));
            }
            busy.extend(window.into_busy());
            if first_round {
                self.next_block = last + 1;
                self.report.blocks_done(count);
                self.record_free_space()?;
                self.finished = Some((first, last));
            }
        }
        self.record_free_space()?;
        Ok(Ok(busy))
    }

    /// The method for the next window: no recycling while the horizon is stuck or rows keep refusing.
    fn method(&mut self) -> Result<Method, Error> {
        if let Some(id) = self.stuck_at
            && self.horizon_has_passed(id)?
        {
            self.stuck_at = None;
        }
        if self.stuck_at.is_some() {
            self.name_holder()?;
        }
        if self.stuck_at.is_some() || self.refused > 0 {
            return Ok(Method::OnePass);
        }
        commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            Ok(self.prepared.method_now(&table))
        })
    }

    fn sweep_window(&mut self, window: &mut Window) -> Result<Result<(), Rewritten>, Error> {
        let mut taken = VecDeque::new();
        loop {
            loop {
                let Some(outcome) = self.batch(window, &mut taken)? else {
                    return Ok(Err(Rewritten));
                };
                self.report
                    .window_at(window.done() * window.blocks() as f64);
                if outcome.refused > 0 {
                    window.give_up_recycling();
                }
                if outcome.pass_ended {
                    break;
                }
            }
            if !window.next_pass() {
                return Ok(Ok(()));
            }
            if !self.wait_for_horizon()? {
                window.give_up_recycling();
            }
        }
    }

    /// One batch in a transaction of its own, or `None` if the table was rewritten since the last.
    fn batch(
        &mut self,
        window: &mut Window,
        taken: &mut VecDeque<Tid>,
    ) -> Result<Option<Outcome>, Error> {
        pg_settings::reload_if_asked();
        let limits = self.limits();
        let outcome = commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            if table.file_node() != self.prepared.file_node {
                return Ok(None);
            }
            self.prepared.require_same_column(self.plan, &table)?;
            self.prepared.follow_name(self.plan, self.oid, &table)?;
            let ground = self.prepared.ground(self.plan, self.oid, &table);
            let outcome = batch::fill(&ground, window, taken, &mut self.pace, limits);
            self.record(&outcome.progress);
            Ok(Some(outcome))
        })?;
        if let Some(outcome) = &outcome {
            self.count(outcome);
            if outcome.locked {
                self.require_patience()?;
            }
        }
        Ok(outcome)
    }

    /// Adds to the job what a batch did; the time since the last one counts too, waits and commits included.
    fn record(&mut self, progress: &Progress) {
        if progress.rows > 0 {
            let active = self.recorded.elapsed();
            self.recorded = Instant::now();
            self.plan
                .job
                .record(self.oid, self.next_block, progress, active);
        }
    }

    fn count(&mut self, outcome: &Outcome) {
        self.refused += outcome.refused;
        if outcome.progress.rows > 0 {
            self.hindered_since = None;
        }
        self.last_id = outcome.id.or(self.last_id);
        self.report.batch(&outcome.progress);
    }

    fn limits(&self) -> Limits {
        Limits {
            rows: self.plan.batch_size,
            time: settings::max_batch_time(),
            lock: settings::row_lock_timeout().min(BATCH_LOCK_WAIT),
        }
    }

    /// Waits for rows that others hold, one by one, each in a transaction that holds nothing else; returns those that
    /// are held still.
    fn wait_for(&mut self, rows: Vec<Tid>) -> Result<Vec<Tid>, Error> {
        let mut locked = vec![];
        for tid in rows {
            if locked.len() >= WAITS_PER_ROUND {
                break;
            }
            let lock = settings::row_lock_timeout();
            let attempt = commit_after(|| {
                let table = open_table(self.plan, self.oid)?;
                self.prepared.require_same_column(self.plan, &table)?;
                self.prepared.follow_name(self.plan, self.oid, &table)?;
                let ground = self.prepared.ground(self.plan, self.oid, &table);
                let attempt = batch::fill_one(&ground, tid, lock);
                if let Attempt::Done(outcome) = &attempt {
                    self.record(&outcome.progress);
                }
                Ok(attempt)
            })?;
            match attempt {
                Attempt::Done(outcome) => self.count(&outcome),
                Attempt::Locked => locked.push(tid),
            }
        }
        Ok(locked)
    }

    /// Waits until what the last pass left dead can be pruned; `false` if that takes too long.
    fn wait_for_horizon(&mut self) -> Result<bool, Error> {
        let Some(id) = self.last_id else {
            return Ok(true);
        };
        let began = Instant::now();
        while !self.horizon_has_passed(id)? {
            if began.elapsed() >= HORIZON_PATIENCE {
                self.stuck_at = Some(id);
                self.widen_window();
                self.name_holder()?;
                return Ok(false);
            }
            usage::sleep(HORIZON_POLL);
        }
        if began.elapsed() > HORIZON_PATIENCE / 5 {
            self.widen_window();
        }
        Ok(true)
    }

    /// A longer window gives the horizon more time between two passes over the same page.
    fn widen_window(&mut self) {
        self.window_size = (self.window_size * 2).min(LARGEST_WINDOW);
    }

    fn horizon_has_passed(&self, id: pg_sys::TransactionId) -> Result<bool, Error> {
        commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            Ok(horizon::has_passed(&table, id))
        })
    }

    /// Says once who keeps dead row versions alive.
    fn name_holder(&mut self) -> Result<(), Error> {
        if self.holder_named {
            return Ok(());
        }
        let holder = commit_after(|| Ok(self.plan.job.horizon_holder()))?;
        if let Some((holder, hint)) = holder {
            self.holder_named = true;
            message::notice(
                format!(
                    "old row versions cannot be reused because of {holder}; the table will grow"
                ),
                Some(&hint),
            );
        }
        Ok(())
    }

    fn record_free_space(&mut self) -> Result<(), Error> {
        let Some((first, last)) = self.finished.take() else {
            return Ok(());
        };
        commit_after(|| {
            let table = open_table(self.plan, self.oid)?;
            table.record_free_space(first, last);
            Ok(())
        })
    }
}

impl Prepared {
    fn look(plan: &Plan<'_>, oid: pg_sys::Oid, table: &Table) -> Result<Self, Error> {
        let name = leaf_name(table);
        let column = find_column(plan, oid, table, &name)?;
        let statements = prepare_statements(plan, oid, &name);
        let mut prepared = Prepared {
            file_node: table.file_node(),
            growth: Growth {
                bytes: plan.filling.bytes(plan.target.column_type),
                align: plan.target.column_type.layout().align,
            },
            method: Method::for_index_cost(index_cost(oid)),
            name,
            column,
            statements,
        };
        prepared.method = prepared.method_now(table);
        Ok(prepared)
    }

    fn ground<'g>(&'g self, plan: &'g Plan<'_>, oid: pg_sys::Oid, table: &'g Table) -> Ground<'g> {
        Ground {
            table,
            oid,
            column: &self.column,
            growth: self.growth,
            key: table.is_key(self.column.number),
            statements: &self.statements,
            filling: plan.filling,
        }
    }

    /// An index on the column, made while the run goes on, makes HOT updates impossible.
    fn method_now(&self, table: &Table) -> Method {
        if table.blocks() >= WORTH_RECYCLING && table.allows_hot(self.column.number) {
            self.method
        } else {
            Method::OnePass
        }
    }

    fn require_same_column(&self, plan: &Plan<'_>, table: &Table) -> Result<(), Error> {
        let changed = |change| Error::ColumnChanged {
            table: self.name.name.clone(),
            column: plan.target.column.clone(),
            change,
        };
        match table.column(self.column.number) {
            None => Err(changed("dropped")),
            Some(now) if now.name != self.column.name => Err(changed("renamed")),
            Some(now) if now != self.column => Err(changed("changed")),
            Some(_) => Ok(()),
        }
    }

    /// Prepares the statements anew if the table was renamed or moved to another schema: names lead to the statements'
    /// table, and another one may bear the old name by now.
    fn follow_name(
        &mut self,
        plan: &Plan<'_>,
        oid: pg_sys::Oid,
        table: &Table,
    ) -> Result<(), Error> {
        let name = leaf_name(table);
        if name != self.name {
            self.statements = prepare_statements(plan, oid, &name);
            self.name = name;
        }
        Ok(())
    }
}

fn open_table(plan: &Plan<'_>, oid: pg_sys::Oid) -> Result<Table, Error> {
    Table::open_for_update(oid).ok_or_else(|| Error::TableDropped {
        table: plan.target.table_name.clone(),
    })
}

fn leaf_name(table: &Table) -> LeafName {
    let (schema, name) = table.name();
    LeafName { schema, name }
}

fn find_column(
    plan: &Plan<'_>,
    oid: pg_sys::Oid,
    table: &Table,
    name: &LeafName,
) -> Result<Column, Error> {
    const NUMBER: &str = "SELECT attnum FROM pg_attribute WHERE attrelid = $1 AND attname = $2::name AND NOT attisdropped";
    let number: Option<i16> = spi::catalog(
        NUMBER,
        &[argument(oid), argument(plan.target.column.as_str())],
    )
    .first()
    .and_then(|row| row.get(1));
    let column = number.and_then(|number| table.column(number));
    match column {
        Some(column) if column.column_type == plan.target.column_type => Ok(column),
        _ => Err(Error::ColumnChanged {
            table: name.name.clone(),
            column: plan.target.column.clone(),
            change: "changed",
        }),
    }
}

fn prepare_statements(plan: &Plan<'_>, oid: pg_sys::Oid, name: &LeafName) -> LeafStatements {
    LeafStatements::prepare(name, plan.target, plan.filling, triggers(oid))
}

fn triggers(oid: pg_sys::Oid) -> Triggers {
    // Bits of tgtype: 1 for each row, 2 before, 16 on UPDATE.
    const TRIGGERS: &str = "
        SELECT bool_or(NOT tgisinternal AND tgtype & 3 = 3), bool_or(NOT tgisinternal), bool_or(tgdeferrable)
        FROM pg_trigger WHERE tgrelid = $1 AND tgenabled <> 'D' AND tgtype & 16 = 16";
    let rows = spi::catalog(TRIGGERS, &[argument(oid)]);
    let truth = |number| {
        rows.first()
            .and_then(|row| row.get(number))
            .unwrap_or(false)
    };
    Triggers {
        may_undo: truth(1),
        may_take_long: truth(2),
        may_wait_at_commit: truth(3),
    }
}

/// What a row that moves to another page costs in its indexes, in entries of a plain B-tree.
fn index_cost(oid: pg_sys::Oid) -> f64 {
    const COST: &str = "
        SELECT sum(CASE am.amname WHEN 'brin' THEN 0.1 WHEN 'gin' THEN 4 WHEN 'gist' THEN 3 WHEN 'spgist' THEN 3
                   ELSE 1 END)::float8
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
        WHERE i.indrelid = $1 AND i.indisready";
    spi::catalog(COST, &[argument(oid)])
        .first()
        .and_then(|row| row.get(1))
        .unwrap_or(0.0)
}

/// The blocks to sweep for these rows; if there may be more rows, all from the first one's on.
fn blocks_of(rows: &[Tid], end: u32) -> Blocks {
    let mut blocks: Vec<u32> = rows.iter().map(|tid| tid.block).collect();
    blocks.sort_unstable();
    blocks.dedup();
    match blocks.first() {
        Some(&first) if rows.len() as i64 >= STRAGGLERS => Blocks::Range(first..end),
        _ => Blocks::List(blocks),
    }
}

//! What a CALL asks for, proven before anything is touched.

use planner::claims::MOST_WORKERS;

use crate::error::Error;
use crate::fill::instant;
use crate::fill::statements::LeafStatements;
use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::job::assignment::Assignment;
use crate::job::method::Method;
use crate::pg::spi::quote_literal;
use crate::pg::tx::Tx;

/// Batches are at least one row and at most this.
const LARGEST_BATCH: i32 = 1_000_000;

/// How a table is filled.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Most rows of a batch.
    pub batch_size: i32,
    /// How rows get their value.
    pub method: Method,
    /// How many processes fill the table.
    pub workers: i32,
}

/// Everything a run needs, proven and parsed.
pub struct Request {
    /// The table and column.
    pub target: Target,
    /// What goes into the column.
    pub value: Value,
    /// How rows get it.
    pub method: Method,
    /// Most rows of a batch.
    pub batch_size: i32,
    /// How many processes fill the table.
    pub workers: i32,
}

impl Request {
    /// Checks the numbers, that the value fits the table, and that the method can be used.
    ///
    /// # Errors
    /// [`Error::BatchSize`], [`Error::Workers`], [`Error::TemporaryTable`], those of [`instant::require`], and PostgreSQL's
    /// own for SQL that does not fit.
    pub fn new(tx: &Tx, target: Target, value: Value, options: Options) -> Result<Self, Error> {
        let Options {
            batch_size,
            method,
            workers,
        } = options;
        require_batch_size(batch_size)?;
        require_workers(workers)?;
        if workers > 1 {
            target.require_shared()?;
        }
        LeafStatements::try_on(tx, &target, &value);
        if method == Method::Instant && !target.is_not_null {
            instant::require(tx, &target, &value)?;
        }
        Ok(Request {
            target,
            value,
            method,
            batch_size,
            workers,
        })
    }

    /// What the job is, as it is stored.
    pub fn assignment(&self) -> Assignment {
        Assignment {
            root: self.target.table,
            table_name: self.target.table_name.clone(),
            leaves: self.target.leaves.clone(),
            column: self.target.column.clone(),
            number: self.target.number,
            recipe: self.value.recipe.clone(),
            filter: self.value.filter.clone(),
            method: self.method,
            batch_size: self.batch_size,
            workers: self.workers,
        }
    }

    /// The CALL that asks for the same, for a HINT that can be run.
    pub fn statement(&self) -> String {
        let (procedure, what) = self.value.procedure();
        let method = match self.method {
            Method::Batch => String::new(),
            method => format!(", method => {}", quote_literal(method.name())),
        };
        let filter = match &self.value.filter {
            Some(filter) => format!(", filter => {}", quote_literal(filter)),
            None => String::new(),
        };
        let workers = match self.workers {
            1 => String::new(),
            workers => format!(", workers => {workers}"),
        };
        format!(
            "CALL {procedure}({}, {}, {}, {}{method}{filter}{workers});",
            quote_literal(&self.target.quoted()),
            quote_literal(&self.target.column),
            quote_literal(what),
            self.batch_size
        )
    }
}

fn require_workers(given: i32) -> Result<(), Error> {
    let (least, most) = (1, MOST_WORKERS as i32);
    if (least..=most).contains(&given) {
        Ok(())
    } else {
        Err(Error::Workers { given, least, most })
    }
}

/// Fails for a number of rows that a batch cannot have.
///
/// # Errors
/// [`Error::BatchSize`].
pub fn require_batch_size(given: i32) -> Result<(), Error> {
    let (least, most) = (1, LARGEST_BATCH);
    if (least..=most).contains(&given) {
        Ok(())
    } else {
        Err(Error::BatchSize { given, least, most })
    }
}

//! What goes into the column: one constant, or an expression over the row.

use std::rc::Rc;

use pgrx::pg_sys;

use crate::error::Error;
use crate::fill::target::Target;
use crate::job::recipe::Recipe;
use crate::pg::tx::Tx;
use crate::pg::value::{ColumnType, Constant};
use crate::pg::{check, parse};

/// What goes into the column, and into which of its NULLs.
#[derive(Debug)]
pub struct Value {
    /// As the job stores it.
    pub recipe: Recipe,
    /// An SQL condition that a row must meet to be filled, or `None` for every row.
    pub filter: Option<String>,
    constant: Option<Rc<Constant>>,
    /// Nothing is known but the filter.
    is_unknown: bool,
}

impl Value {
    /// The same value for every row.
    ///
    /// # Errors
    /// [`Error::CheckViolation`] if a CHECK on this column alone refuses the value; [`Error::NotAnExpression`].
    pub fn of_constant(
        tx: &Tx,
        constant: Constant,
        filter: Option<String>,
        target: &Target,
    ) -> Result<Self, Error> {
        let value = Value {
            recipe: Recipe::Constant(constant.to_text(tx)),
            constant: Some(Rc::new(constant)),
            filter,
            is_unknown: false,
        };
        value.require_expressions(tx)?;
        value.require_checks(tx, target, target.table, target.number)?;
        Ok(value)
    }

    /// A value computed for each row.
    ///
    /// # Errors
    /// [`Error::NotAnExpression`], and PostgreSQL's own for SQL that does not parse.
    pub fn of_expression(
        tx: &Tx,
        expression: String,
        filter: Option<String>,
    ) -> Result<Self, Error> {
        let value = Value {
            recipe: Recipe::Expression(expression),
            constant: None,
            filter,
            is_unknown: false,
        };
        value.require_expressions(tx)?;
        Ok(value)
    }

    /// A value that is not known yet, of which only the filter matters: NULL of no type for each row.
    ///
    /// # Errors
    /// Those of [`Value::of_expression`].
    pub fn unknown(tx: &Tx, filter: String) -> Result<Self, Error> {
        let mut value = Self::of_expression(tx, "NULL".into(), Some(filter))?;
        value.is_unknown = true;
        Ok(value)
    }

    /// Whether it was made by [`Value::unknown`].
    pub fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    fn require_expressions(&self, tx: &Tx) -> Result<(), Error> {
        let expression = match &self.recipe {
            Recipe::Constant(_) => None,
            Recipe::Expression(text) => Some(("expression", text)),
        };
        let filter = self.filter.as_ref().map(|text| ("filter", text));
        for (argument, text) in expression.into_iter().chain(filter) {
            if !parse::is_expression(tx, text) {
                return Err(Error::NotAnExpression { argument });
            }
        }
        Ok(())
    }

    /// Tries the value on every CHECK of a table, the target or one below it, that uses the column alone, so that a
    /// violation is found before any row is touched. `number` is that of the column in the table.
    ///
    /// # Errors
    /// [`Error::CheckViolation`].
    pub fn require_checks(
        &self,
        tx: &Tx,
        target: &Target,
        table: pg_sys::Oid,
        number: i16,
    ) -> Result<(), Error> {
        let Some(constant) = &self.constant else {
            return Ok(());
        };
        let checks: Vec<(String, String)> = tx
            .catalog(CHECKS, &[&table, &number])
            .iter()
            .filter_map(|row| Some((row.get(1)?, row.get(2)?)))
            .collect();
        for (constraint, tree) in checks {
            if !check::allows(tx, &tree, number, constant) {
                return Err(Error::CheckViolation {
                    table: target.table_name.clone(),
                    column: target.column.clone(),
                    constraint,
                });
            }
        }
        Ok(())
    }

    /// The value, if every row gets the same.
    pub fn constant(&self) -> Option<Rc<Constant>> {
        self.constant.clone()
    }

    /// The value as its type writes it, if every row gets the same.
    pub fn constant_text(&self) -> Option<&str> {
        match &self.recipe {
            Recipe::Constant(text) => Some(text),
            Recipe::Expression(_) => None,
        }
    }

    /// The procedure that a CALL names to fill rows with it, and how the CALL gives it.
    pub fn procedure(&self) -> (&'static str, &str) {
        match &self.recipe {
            Recipe::Constant(text) => ("safe_backfill", text),
            Recipe::Expression(text) => ("safe_backfill_using", text),
        }
    }

    /// Whether rows may be NULL after they were filled, because the expression is NULL for them.
    pub fn can_be_null(&self) -> bool {
        matches!(self.recipe, Recipe::Expression(_))
    }

    /// Whether the filter or the expression has to be tried on a row, to know whether it is to be filled.
    pub fn tries_rows(&self) -> bool {
        self.filter.is_some() || self.can_be_null()
    }

    /// Bytes that the value takes in a row: known for a constant, the type's length or a guess for an expression.
    pub fn bytes(&self, tx: &Tx, column_type: ColumnType) -> usize {
        const GUESS: usize = 16;
        match (&self.constant, column_type.layout(tx).length) {
            (Some(constant), _) => constant.stored_bytes(tx),
            (None, length) => usize::try_from(length).unwrap_or(GUESS),
        }
    }
}

const CHECKS: &str = "
    SELECT conname::text, conbin::text
    FROM pg_constraint c
    WHERE conrelid = $1 AND contype = 'c' AND conkey = ARRAY[$2]
    -- Since PostgreSQL 18 a constraint can be NOT ENFORCED.
    AND coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true)";

//! What goes into the column: one constant, or an expression over the row.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::pg::spi::{self, argument};
use crate::pg::value::{ColumnType, Constant};
use crate::pg::{check, parse};
use crate::target::Target;

/// What goes into the column, as a job stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// The same value for every row, as its type writes it.
    Constant(String),
    /// An SQL expression over the columns of the row.
    Expression(String),
}

/// What goes into the column, and into which of its NULLs.
#[derive(Debug)]
pub struct Filling {
    /// As the job stores it.
    pub recipe: Recipe,
    /// An SQL condition that a row must meet to be filled, or `None` for every row.
    pub filter: Option<String>,
    constant: Option<Constant>,
}

impl Filling {
    /// The same value for every row.
    ///
    /// # Errors
    /// [`Error::CheckViolation`] if a CHECK on this column alone refuses the value; [`Error::NotAnExpression`].
    pub fn constant(
        constant: Constant,
        filter: Option<String>,
        target: &Target,
    ) -> Result<Self, Error> {
        let filling = Filling {
            recipe: Recipe::Constant(constant.to_text()),
            constant: Some(constant),
            filter,
        };
        filling.require_expressions()?;
        filling.require_checks(target)?;
        Ok(filling)
    }

    /// A value computed for each row.
    ///
    /// # Errors
    /// [`Error::NotAnExpression`], and PostgreSQL's own for SQL that does not parse.
    pub fn expression(expression: String, filter: Option<String>) -> Result<Self, Error> {
        let filling = Filling {
            recipe: Recipe::Expression(expression),
            constant: None,
            filter,
        };
        filling.require_expressions()?;
        Ok(filling)
    }

    fn require_expressions(&self) -> Result<(), Error> {
        let expression = match &self.recipe {
            Recipe::Constant(_) => None,
            Recipe::Expression(text) => Some(("expression", text)),
        };
        let filter = self.filter.as_ref().map(|text| ("filter", text));
        for (argument, text) in expression.into_iter().chain(filter) {
            if !parse::is_expression(text) {
                return Err(Error::NotAnExpression { argument });
            }
        }
        Ok(())
    }

    /// Asks every CHECK that looks at this column alone, so that a value it refuses is found before a row is touched.
    fn require_checks(&self, target: &Target) -> Result<(), Error> {
        let Some(constant) = &self.constant else {
            return Ok(());
        };
        let checks: Vec<(String, String)> =
            spi::catalog(CHECKS, &[argument(target.table), argument(target.number)])
                .iter()
                .filter_map(|row| Some((row.get(1)?, row.get(2)?)))
                .collect();
        for (constraint, tree) in checks {
            if !check::allows(&tree, target.number, constant) {
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
    pub fn value(&self) -> Option<&Constant> {
        self.constant.as_ref()
    }

    /// Whether some rows may rightly be NULL still after they were filled.
    pub fn can_be_null(&self) -> bool {
        matches!(self.recipe, Recipe::Expression(_))
    }

    /// Bytes that the value takes in a row: known for a constant, the type's length or a guess for an expression.
    pub fn bytes(&self, column_type: ColumnType) -> usize {
        const GUESS: usize = 16;
        match (&self.constant, column_type.layout().length) {
            (Some(constant), _) => constant.stored_bytes(),
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

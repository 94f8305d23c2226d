//! What counts as one SQL expression.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::parse;
    use crate::pg::transaction::within_statement;

    fn is_expression(text: &str) -> bool {
        within_statement(|tx| parse::is_expression(tx, text))
    }

    #[pg_test]
    fn expressions_pass() {
        for text in [
            "1",
            "lower(name)",
            "large_user.name || ' x'",
            "CASE WHEN a > 1 THEN 'x' END",
            "(SELECT max(id) FROM other)",
            "created_at::date -- the day",
            "ARRAY[1, 2]",
            "ROW(1, 2)",
        ] {
            assert!(is_expression(text), "{text}");
        }
    }

    #[pg_test]
    fn more_than_an_expression_does_not() {
        for text in [
            "1, other = 2",
            "name AS n",
            "name FROM large_user",
            "name INTO t",
            "1 WHERE true",
            "1 ORDER BY 1",
            "1; DROP TABLE large_user",
            "*, 1",
        ] {
            assert!(!is_expression(text), "{text}");
        }
    }

    #[pg_test(error = "syntax error at or near \")\"")]
    fn parentheses_cannot_be_closed() {
        is_expression("1) WHERE (true");
    }
}

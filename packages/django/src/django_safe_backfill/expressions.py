"""Django's expressions as SQL over one row."""

from typing import Any

from django.core.exceptions import EmptyResultSet, FieldError, FullResultSet
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model, Q
from django.db.models.sql import Query

from django_safe_backfill.errors import SafeMigrationError


def is_expression(value: object) -> bool:
    """Whether Django computes it from the row: F, Func, Case, RawSQL."""
    return hasattr(value, "resolve_expression")


def require_value(name: str, value: object) -> None:
    """Raises ValueError for a function, which would be called once or not at all."""
    if callable(value) and not is_expression(value):
        raise ValueError(f"{name} must be a value or an expression, and not a callable")


def as_sql(editor: BaseDatabaseSchemaEditor, model: type[Model], expression: Any) -> str:
    """The expression as SQL, with its values in it.

    Raises SafeMigrationError where it needs more than the row."""
    query = Query(model, alias_cols=False)
    compiler = query.get_compiler(connection=editor.connection)
    try:
        resolved = expression.resolve_expression(query, allow_joins=False)
        if resolved.contains_aggregate or resolved.contains_over_clause:
            raise FieldError("It has an aggregate or a window function.")
        return compose(editor, *compiler.compile(resolved))
    except FieldError as error:
        raise not_of_a_row(expression, error) from error


def condition_as_sql(editor: BaseDatabaseSchemaEditor, model: type[Model], condition: Q) -> str | None:
    """The condition as SQL, with its values in it; None where each row meets it.

    Raises EmptyResultSet where none does, SafeMigrationError where it needs more than the row."""
    query = Query(model, alias_cols=False)
    try:
        where = query.build_where(condition)
        compiler = query.get_compiler(connection=editor.connection)
        sql, values = where.as_sql(compiler, editor.connection)
    except FullResultSet:
        return None
    except FieldError as error:
        raise not_of_a_row(condition, error) from error
    return compose(editor, sql, values) or None


def matches_none(editor: BaseDatabaseSchemaEditor, model: type[Model], condition: Q | None) -> bool:
    """Whether the condition, such as `Q(pk__in=[])`, holds for no row whatever the table has."""
    try:
        if condition is not None:
            condition_as_sql(editor, model, condition)
    except EmptyResultSet:
        return True
    return False


def compose(editor: BaseDatabaseSchemaEditor, sql: str, values: Any) -> str:
    editor.connection.ensure_connection()
    return str(editor.connection.ops.compose_sql(sql, tuple(values)))


def not_of_a_row(expression: object, reason: FieldError) -> SafeMigrationError:
    return SafeMigrationError(
        f"{expression!r} cannot be computed from a row alone: {reason}\n"
        "HINT: Use the columns of the row, without joins and aggregates; or RawSQL with a subquery."
    )

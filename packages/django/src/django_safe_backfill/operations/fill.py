"""Filling a column where it is NULL."""

from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model, Q

from django_safe_backfill.expressions import as_sql, condition_as_sql, is_expression
from django_safe_backfill.fields import AnyField
from django_safe_backfill.procedure import call

BATCH_SIZE = 10000


def fill(
    editor: BaseDatabaseSchemaEditor,
    model: type[Model],
    field: AnyField,
    value: Any,
    *,
    where: Q | None = None,
    batch_size: int = BATCH_SIZE,
    method: str | None = None,
) -> None:
    """Fills the column of `field` with a value that is prepared for the database, or an expression, a commit per batch.

    Raises EmptyResultSet where no row can meet `where`, SafeMigrationError."""
    condition = condition_as_sql(editor, model, where) if where is not None else None
    table = editor.quote_name(model._meta.db_table)
    options = {"batch_size": batch_size, "filter": condition}
    if is_expression(value):
        call(editor, "safe_backfill_using", table, field.column, as_sql(editor, model, value), **options)
    else:
        call(editor, "safe_backfill", table, field.column, value, **options, method=method)


def set_not_null(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    """Makes the column NOT NULL, while its rows are read and written."""
    call(editor, "safe_set_not_null", editor.quote_name(model._meta.db_table), field.column)

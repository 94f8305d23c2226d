"""Filling a column where it is NULL."""

import re
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model, Q, Value
from django.db.models.sql import Query

from django_safe_backfill.expressions import as_sql, condition_as_sql, is_expression
from django_safe_backfill.fields import AnyField
from django_safe_backfill.procedure import call

BATCH_SIZE = 10000
CAST = re.compile(r"%s(::.+)?")


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
    if not is_expression(value) and has_placeholder(editor, field, value):
        value = Value(value, output_field=field)
    condition = condition_as_sql(editor, model, where) if where is not None else None
    table = editor.quote_name(model._meta.db_table)
    options = {"batch_size": batch_size, "filter": condition}
    if is_expression(value):
        call(editor, "safe_backfill_using", table, field.column, as_sql(editor, model, value), **options)
    else:
        call(editor, "safe_backfill", table, field.column, value, **options, method=method)


def has_placeholder(editor: BaseDatabaseSchemaEditor, field: AnyField, value: Any) -> bool:
    """Whether a field of this kind has SQL of its own around its values; a cast to its type is none."""
    if not hasattr(field, "get_placeholder"):
        return False
    compiler = Query(field.model).get_compiler(connection=editor.connection)
    return not CAST.fullmatch(field.get_placeholder(value, compiler, editor.connection))


def set_not_null(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    """Makes the column NOT NULL, while its rows are read and written."""
    call(editor, "safe_set_not_null", editor.quote_name(model._meta.db_table), field.column)

"""Tables of fields that have no column."""

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model

from django_safe_backfill.ddl import patiently
from django_safe_backfill.errors import SafeMigrationError
from django_safe_backfill.fields import AnyField


def add_table(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    """Adds the table of a ManyToManyField, if it is not there: an attempt that was stopped has added it whole, or not.

    It is empty, but its foreign keys lock the tables that they refer to."""
    earlier = editor.deferred_sql

    def alter() -> None:
        editor.deferred_sql = []
        editor.add_field(model, field)
        for statement in editor.deferred_sql:
            editor.execute(statement, None)

    if not field.remote_field.through._meta.auto_created:
        return
    if not editor.collect_sql and has_table(editor, field):
        require_same_table(editor, field)
        return
    try:
        patiently(editor, alter)
    finally:
        editor.deferred_sql = earlier


def has_table(editor: BaseDatabaseSchemaEditor, field: AnyField) -> bool:
    """Whether the table of a ManyToManyField is there."""
    return bool(columns_of_table(editor, field))


def require_same_table(editor: BaseDatabaseSchemaEditor, field: AnyField) -> None:
    """Raises SafeMigrationError where a table of the name has other columns."""
    through, found = field.remote_field.through, columns_of_table(editor, field)
    if found and set(found) != {column.column for column in through._meta.local_concrete_fields}:
        raise SafeMigrationError(
            f"there is a table {through._meta.db_table} already, with columns {', '.join(found)}.\n"
            "HINT: Rename it or drop it, then run the same command."
        )


def columns_of_table(editor: BaseDatabaseSchemaEditor, field: AnyField) -> list[str]:
    with editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname::text FROM pg_catalog.pg_attribute"
            " WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [editor.quote_name(field.remote_field.through._meta.db_table)],
        )
        return [name for (name,) in cursor.fetchall()]

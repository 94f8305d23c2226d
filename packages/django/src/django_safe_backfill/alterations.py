"""Which changes of a field are changes of the catalogs alone."""

import re

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Model

from django_safe_backfill.fields import AnyField

VARCHAR = re.compile(r"varchar(?:\((\d+)\))?|text")


def refusal(connection: BaseDatabaseWrapper, old: AnyField, new: AnyField) -> str | None:
    """Why the change cannot be made without a long, strong lock; None where it can, as far as the fields tell."""
    if old.many_to_many or new.many_to_many:
        return "it is a ManyToManyField, which has no column"
    if old.primary_key or new.primary_key:
        return "it is a primary key"
    if old.generated or new.generated:
        return "it is a GeneratedField"
    if old.column != new.column:
        return "its column is renamed"
    if old.remote_field and new.remote_field and target(old) != target(new):
        return "it refers to another model"
    if all(side.remote_field and side.db_constraint for side in (old, new)) and on_delete(old) != on_delete(new):
        return "what the database does ON DELETE changes"
    return of_type(connection, old, new)


def concerns_database(connection: BaseDatabaseWrapper, old: AnyField, new: AnyField) -> bool:
    """Whether Django's own operation would lock the table."""
    editor = connection.schema_editor(collect_sql=True)
    becomes_not_null = old.null and not new.null
    return bool(editor._field_should_be_altered(old, new, ignore=None if becomes_not_null else {"default"}))


def target(field: AnyField) -> tuple[str, str | None]:
    remote = field.remote_field
    return remote.model._meta.label_lower, getattr(remote, "field_name", None)


def on_delete(field: AnyField) -> object:
    """What the foreign key has the database do; before Django 6.1, nothing."""
    action = getattr(field.remote_field, "on_delete", None)
    return action if hasattr(action, "on_delete_sql") else None


def of_type(connection: BaseDatabaseWrapper, old: AnyField, new: AnyField) -> str | None:
    before, after = (field.db_parameters(connection) for field in (old, new))
    if before.get("collation") != after.get("collation"):
        return "its collation changes, which rewrites its indexes"
    if None in (before["type"], after["type"]):
        return "it has no column"
    if before["type"] == after["type"]:
        return None
    if not is_longer(before["type"], after["type"]):
        return f"its type changes from {before['type']} to {after['type']}, which reads or rewrites the table"
    return None


def refusal_of_table(editor: BaseDatabaseSchemaEditor, model: type[Model], old: AnyField, new: AnyField) -> str | None:
    """As `refusal`, with a look at what the table has."""
    reason = refusal(editor.connection, old, new)
    types = {field.db_parameters(editor.connection)["type"] for field in (old, new)}
    if reason is None and len(types) > 1 and depends_on_type(editor, model, old):
        return "its type changes, and a constraint or an index with an expression uses it, which reads the whole table"
    return reason


def has_text(connection: BaseDatabaseWrapper, old: AnyField, new: AnyField) -> bool:
    """Whether both types are varchar or text, of one collation."""
    before, after = (field.db_parameters(connection) for field in (old, new))
    is_text = all(VARCHAR.fullmatch(side["type"] or "") for side in (before, after))
    return is_text and before.get("collation") == after.get("collation")


def is_longer(before: str, after: str) -> bool:
    """Whether each value of one type is a value of the other, so that no row has to be read."""
    one, other = VARCHAR.fullmatch(before), VARCHAR.fullmatch(after)
    if one is None or other is None or before == "text":
        return False
    return other[1] is None or (one[1] is not None and int(other[1]) >= int(one[1]))


def depends_on_type(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> bool:
    """Whether PostgreSQL makes something anew, and reads the table for it, when the type of the column changes."""
    with editor.connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXISTS (
                SELECT FROM pg_catalog.pg_attribute a
                JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                     AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
                LEFT JOIN pg_catalog.pg_constraint c
                     ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = d.objid
                LEFT JOIN pg_catalog.pg_index i
                     ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.indexrelid = d.objid
                WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = %s
                AND (c.contype IN ('c', 'f') OR i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
            """,
            [editor.quote_name(model._meta.db_table), field.column],
        )
        row = cursor.fetchone()
    return bool(row and row[0])

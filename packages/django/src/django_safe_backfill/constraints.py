"""Indexes and constraints of a field, built while the table is read and written.

Each is skipped where it is there already, and an index that was left invalid is built anew: so the same migration goes
on after it was stopped. They have the names that Django gives them when it alters a field."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import IntegrityError, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.utils import strip_quotes
from django.db.models import Model

from django_safe_backfill.ddl import patiently, unhurriedly
from django_safe_backfill.errors import SafeMigrationError, in_words
from django_safe_backfill.fields import AnyField, indexed_as, kept

ON_DELETE = re.compile(r"\bON DELETE (CASCADE|SET NULL|SET DEFAULT)\b")
USING = re.compile(r"\bUSING (\w+) ")


def build(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, old: AnyField | None = None) -> None:
    """Builds what `field` has and `old` does not; where there is an `old`, but for what `build_replacement` has built.

    Raises SafeMigrationError where rows are in the way: duplicates, or values without a row that they refer to."""
    with told():
        if field.unique and old is None:
            build_unique(editor, model, field)
        replacement = replacement_index(editor, model, field, old)
        for statement in missing_indexes(editor, model, field, old):
            if str(statement) != str(replacement):
                build_index(editor, model, field, statement)
        if check(editor, field) and not (old and check(editor, old)):
            build_check(editor, model, field)
        if is_constrained(field) and not (old and is_constrained(old)):
            build_foreign_key(editor, model, field)


def build_replacement(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, old: AnyField) -> None:
    """Builds what `field` has in place of an index of `old`, which is there still.

    Raises SafeMigrationError where rows are in the way."""
    with told():
        replacement = replacement_index(editor, model, field, old)
        if field.unique and not old.unique:
            build_unique(editor, model, field)
        elif replacement is not None:
            build_index(editor, model, field, replacement)


def replacement_index(
    editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, old: AnyField | None
) -> Any:
    """The statement that builds an index in place of that of a unique constraint, which goes."""
    is_replaced = old is not None and old.unique and not field.unique and field.db_index
    return editor._field_indexes_sql(model, field)[0] if is_replaced else None


@contextmanager
def none_built_twice(editor: BaseDatabaseSchemaEditor) -> Iterator[None]:
    """Django builds an index in place of a unique constraint that it removes; it is there already."""
    editor.sql_create_index = editor.sql_create_index.replace("CREATE INDEX", "CREATE INDEX IF NOT EXISTS", 1)
    try:
        yield
    finally:
        del editor.sql_create_index


@contextmanager
def told() -> Iterator[None]:
    """Raises SafeMigrationError for rows that are in the way of a constraint."""
    try:
        yield
    except IntegrityError as error:
        raise SafeMigrationError(
            f"{in_words(error)}\nHINT: Mend these rows, then run the same command to go on."
        ) from error


def require_possible(
    editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, old: AnyField | None = None
) -> None:
    """Raises SafeMigrationError where PostgreSQL has no way to build what `field` has and `old` does not."""
    if (field.unique and not (old and old.unique)) or missing_indexes(editor, model, field, old):
        reason = "builds no index concurrently on"
    elif is_constrained(field) and not (old and is_constrained(old)) and editor.connection.pg_version < 180000:
        reason = "before version 18 adds no foreign key that is validated afterwards to"
    else:
        return
    if editor.collect_sql or not is_partitioned(editor, model):
        return
    raise SafeMigrationError(
        f"PostgreSQL {reason} a partitioned table, such as {model._meta.db_table}.\n"
        "HINT: Give the field db_index=False, unique=False or db_constraint=False, then build it on each partition"
        " with RunSQL; or use Django's operation knowingly."
    )


def is_partitioned(editor: BaseDatabaseSchemaEditor, model: type[Model]) -> bool:
    with editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT relkind = 'p' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)",
            [editor.quote_name(model._meta.db_table)],
        )
        row = cursor.fetchone()
    return bool(row and row[0])


def check(editor: BaseDatabaseSchemaEditor, field: AnyField) -> str | None:
    found: str | None = field.db_parameters(editor.connection)["check"]
    return found


def is_constrained(field: AnyField) -> bool:
    return bool(field.remote_field and getattr(field, "db_constraint", False))


def missing_indexes(
    editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, old: AnyField | None
) -> list[Any]:
    statements = editor._field_indexes_sql(model, field)
    if old is None:
        return list(statements)
    # That for LIKE differs with the type, and goes when the type changes.
    there = {str(statement) for statement in editor._field_indexes_sql(model, indexed_as(old, kept(old, field)))}
    return [statement for statement in statements if str(statement) not in there]


def build_index(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, statement: Any) -> None:
    name, using = strip_quotes(str(statement.parts["name"])), USING.search(str(statement))
    if removed_if_invalid(editor, model, field, name, method=using[1].lower() if using else "btree"):
        statement.template = editor.sql_create_index_concurrently
        unhurriedly(editor, statement)


def build_unique(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    table, column = editor.quote_name(model._meta.db_table), editor.quote_name(field.column)
    name = editor._create_index_name(model._meta.db_table, [field.column], suffix="_uniq")
    if constraint(editor, model, field, name, "u") is not None:
        return
    quoted = editor.quote_name(name)
    if removed_if_invalid(editor, model, field, name, is_unique=True):
        tablespace = editor._get_index_tablespace_sql(model, [field])
        unhurriedly(editor, f"CREATE UNIQUE INDEX CONCURRENTLY {quoted} ON {table} ({column}){tablespace}")
    statement = f"ALTER TABLE {table} ADD CONSTRAINT {quoted} UNIQUE USING INDEX {quoted}"
    patiently(editor, lambda: editor.execute(statement, None))


def build_check(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    name = editor._create_index_name(model._meta.db_table, [field.column], suffix="_check")
    statement = editor._create_check_sql(model, name, check(editor, field))
    is_valid = constraint(editor, model, field, name, "c")
    if is_valid is not None:
        require_same_check(editor, model, field, name)
    prove(editor, model, name, statement, is_valid)


def require_same_check(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, name: str) -> None:
    """PostgreSQL is asked for its way to write the check, on an empty temporary table."""
    table = editor.quote_name(model._meta.db_table)
    found = (
        "SELECT pg_catalog.pg_get_expr(conbin, conrelid) FROM pg_catalog.pg_constraint"
        " WHERE conrelid = pg_catalog.to_regclass(%s) AND conname = %s AND contype = 'c'"
    )
    with transaction.atomic(editor.connection.alias), editor.connection.cursor() as cursor:
        cursor.execute(found, [table, name])
        (there,) = cursor.fetchone()
        cursor.execute(f"CREATE TEMPORARY TABLE safe_backfill_trial (LIKE {table})")
        cursor.execute(f"ALTER TABLE pg_temp.safe_backfill_trial ADD CONSTRAINT c CHECK ({check(editor, field)})")
        cursor.execute(found, ["pg_temp.safe_backfill_trial", "c"])
        (expected,) = cursor.fetchone()
        transaction.set_rollback(True, editor.connection.alias)
    if there != expected:
        raise another(model, f'a constraint "{name}"', f"CHECK {there}")


def build_foreign_key(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    statement: Any = editor._create_fk_sql(model, field, "_fk_%(to_table)s_%(to_column)s")
    name = strip_quotes(str(statement.parts["name"]))
    found = ON_DELETE.search(str(statement))
    deletion = {"CASCADE": "c", "SET NULL": "n", "SET DEFAULT": "d"}[found[1]] if found else "a"
    prove(editor, model, name, statement, constraint(editor, model, field, name, "f", deletion))


def prove(
    editor: BaseDatabaseSchemaEditor, model: type[Model], name: str, statement: object, is_valid: bool | None
) -> None:
    """Adds a constraint for rows to come, then proves it for those that are there, which takes no lock that matters.

    `is_valid` is None where the table does not have it."""
    if is_valid is None:
        patiently(editor, lambda: editor.execute(f"{statement} NOT VALID", None))
    if not is_valid:
        table = editor.quote_name(model._meta.db_table)
        unhurriedly(editor, f"ALTER TABLE {table} VALIDATE CONSTRAINT {editor.quote_name(name)}")


def constraint(
    editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, name: str, kind: str, deletion: str = ""
) -> bool | None:
    """Whether the constraint of that name is valid; None where there is none.

    `kind` and, of a foreign key, `deletion` are as in pg_constraint.contype and confdeltype.

    Raises SafeMigrationError where it is of another kind, of other columns or refers to another table."""
    if editor.collect_sql:
        return None
    target = field.remote_field.model._meta.db_table if kind == "f" else ""
    with editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT convalidated, pg_catalog.pg_get_constraintdef(c.oid),"
            " contype::text = %s AND CASE contype WHEN 'c' THEN conkey @> ARRAY[attnum] ELSE conkey = ARRAY[attnum] END"
            " AND condeferrable = (contype = 'f')"
            " AND (%s = '' OR confrelid = pg_catalog.to_regclass(%s) AND confupdtype = 'a' AND confdeltype::text = %s)"
            " AND NOT coalesce(i.indnullsnotdistinct, false)"
            " FROM pg_catalog.pg_constraint c"
            " LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.conindid AND c.contype = 'u'"
            " LEFT JOIN pg_catalog.pg_attribute ON attrelid = conrelid AND attname = %s AND NOT attisdropped"
            " WHERE conrelid = pg_catalog.to_regclass(%s) AND conname = %s",
            [
                kind,
                target,
                editor.quote_name(target),
                deletion,
                field.column,
                editor.quote_name(model._meta.db_table),
                name,
            ],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    is_valid, definition, is_it = row
    if not is_it:
        raise another(model, f'a constraint "{name}"', definition)
    return bool(is_valid)


def another(model: type[Model], what: str, definition: str) -> SafeMigrationError:
    return SafeMigrationError(
        f"table {model._meta.db_table} has {what} already, which is another one: {definition}\n"
        "HINT: Rename it or drop it, then run the same command to go on."
    )


def removed_if_invalid(
    editor: BaseDatabaseSchemaEditor,
    model: type[Model],
    field: AnyField,
    name: str,
    *,
    is_unique: bool = False,
    method: str = "btree",
) -> bool:
    """Whether the index has to be built; what an attempt that failed has left is removed before.

    Raises SafeMigrationError where an index of that name is another one, or is being built by another session."""
    if editor.collect_sql:
        return True
    with editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT i.indisvalid, i.indexrelid::pg_catalog.regclass::text, pg_catalog.pg_get_indexdef(i.indexrelid),"
            " i.indisunique = %s AND i.indnatts = 1 AND i.indkey[0] = a.attnum AND i.indpred IS NULL"
            " AND NOT i.indnullsnotdistinct AND m.amname = %s"
            " FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_catalog.pg_am m ON m.oid = c.relam"
            " LEFT JOIN pg_catalog.pg_attribute a"
            "      ON a.attrelid = i.indrelid AND a.attname = %s AND NOT a.attisdropped"
            " WHERE i.indrelid = pg_catalog.to_regclass(%s) AND c.relname = %s",
            [is_unique, method, field.column, editor.quote_name(model._meta.db_table), name],
        )
        row = cursor.fetchone()
    if row is None:
        return True
    is_valid, index, definition, is_it = row
    if not is_it:
        raise another(model, f"an index {index}", definition)
    if not is_valid:
        require_abandoned(editor, index)
        unhurriedly(editor, f"DROP INDEX CONCURRENTLY {index}")
    return not is_valid


def require_abandoned(editor: BaseDatabaseSchemaEditor, index: str) -> None:
    """Raises SafeMigrationError for an index that is not valid because a session still builds it."""
    with editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_catalog.pg_stat_progress_create_index"
            " WHERE index_relid = %s::pg_catalog.regclass AND datname = pg_catalog.current_database()",
            [index],
        )
        row = cursor.fetchone()
    if row:
        raise SafeMigrationError(
            f"another session is building index {index}: process {row[0]}\n"
            "HINT: Wait for it, then run the same command."
        )

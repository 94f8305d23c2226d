"""Fields with some attributes changed, and the columns they stand for."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

from django.db import DatabaseError, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import NOT_PROVIDED, Model
from django.utils.functional import cached_property

from django_safe_backfill.errors import SafeMigrationError

# A field that has a column: the stubs take its column, and whatever it refers to, for what may be None.
AnyField: TypeAlias = Any


def field_of(model: type[Model], name: str) -> AnyField:
    """The field of that name.

    Raises SafeMigrationError where its column is in the table of another model, from which this one inherits."""
    field: AnyField = model._meta.get_field(name)
    if field.model._meta.db_table != model._meta.db_table:
        raise SafeMigrationError(
            f"{name} is a field of {field.model._meta.label}, from which {model._meta.label} inherits.\n"
            f"HINT: Name that model, {field.model._meta.model_name}."
        )
    return field


def variant(field: AnyField, **attributes: Any) -> AnyField:
    """A copy of the field, of the same model, with other attributes."""
    other = copy.copy(field)
    for name in list(other.__dict__):
        # Computed from attributes that may be changed.
        if isinstance(getattr(type(other), name, None), cached_property):
            del other.__dict__[name]
    for name, value in attributes.items():
        setattr(other, name, value)
    return other


def bare(field: AnyField, **attributes: Any) -> AnyField:
    """The column alone: without what PostgreSQL would have to build or to prove under its lock."""
    return variant(field, _unique=False, db_index=False, db_constraint=False, db_check=no_check, **attributes)


def without_default(field: AnyField, **attributes: Any) -> AnyField:
    """The field without a default of Django's, for which it also takes the time of `auto_now`."""
    return variant(field, default=NOT_PROVIDED, auto_now=False, auto_now_add=False, **attributes)


def of_type(field: AnyField, type: str) -> AnyField:
    """The field with another type of its column."""
    return variant(field, db_type=lambda connection: type)


def no_check(*arguments: object) -> None:
    """In place of what tells the CHECK of a type of fields."""
    return None


def indexed_as(new: AnyField, old: AnyField) -> AnyField:
    """One field with the indexes of the other, and no others."""
    return variant(new, _unique=old._unique, db_index=old.db_index)


def kept(old: AnyField, new: AnyField) -> AnyField:
    """The new field with those of its indexes alone that are there, and are not replaced by others."""
    unique = new.unique and old.unique
    return variant(new, _unique=unique, db_index=new.db_index and old.db_index and unique == new.unique)


@contextmanager
def default_of_operation(operation: Any, field: AnyField) -> Iterator[None]:
    """With `preserve_default=False` the default is for this migration only, and the state does not have it."""
    if operation.preserve_default:
        yield
        return
    field.default = operation.field.default
    field.__dict__.pop("_get_default", None)
    try:
        yield
    finally:
        field.default = NOT_PROVIDED
        field.__dict__.pop("_get_default", None)


class Column(NamedTuple):
    """A column as the database has it."""

    type: str
    is_not_null: bool
    default: str | None
    collation: str
    kind: str
    """As pg_attribute.attidentity and attgenerated have it; empty for an ordinary column."""
    has_missing_value: bool
    """Whether rows that were written before it was added have its first default."""

    @property
    def definition(self) -> str:
        """All but whether it is NOT NULL, in words."""
        default = "without a default" if self.default is None else f"with default {self.default}"
        kind = {"": "", "s": ", a generated column", "v": ", a generated column"}.get(self.kind, ", an identity column")
        collation = "" if self.collation in ("-", '"default"') else f" COLLATE {self.collation}"
        return f"of type {self.type}{collation} {default}{kind}"


COLUMN = (
    "SELECT pg_catalog.format_type(atttypid, atttypmod), attnotnull, pg_catalog.pg_get_expr(adbin, adrelid),"
    " attcollation::pg_catalog.regcollation::text, attidentity::text || attgenerated::text, atthasmissing"
    " FROM pg_catalog.pg_attribute LEFT JOIN pg_catalog.pg_attrdef ON adrelid = attrelid AND adnum = attnum"
    " WHERE attrelid = pg_catalog.to_regclass(%s) AND attname = %s AND NOT attisdropped"
)


def column_of(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> Column | None:
    """The column of the field, or None where the database has none."""
    with editor.connection.cursor() as cursor:
        cursor.execute(COLUMN, [editor.quote_name(model._meta.db_table), field.column])
        row = cursor.fetchone()
    return row and Column(*row)


class Trial(NamedTuple):
    """What would come of adding a column."""

    column: Column | None
    rewrites: bool


def tried(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> Trial:
    """The column that PostgreSQL would add, and whether it would rewrite the table for that.

    PostgreSQL is asked: the column is added to an empty temporary table, which is rolled back. Where only SQL is
    collected, the type may be of a migration that was not run: then the column is None."""
    definition, values = editor.column_sql(model, field, include_default=True)
    table = "pg_temp.safe_backfill_trial"
    alter = editor.connection.ops.compose_sql(f"ALTER TABLE {table} ADD COLUMN c {definition}", tuple(values or ()))
    file = f"SELECT pg_catalog.pg_relation_filenode('{table}')"
    try:
        with transaction.atomic(editor.connection.alias), editor.connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE safe_backfill_trial ()")
            cursor.execute(file)
            before = cursor.fetchone()
            cursor.execute(alter)
            cursor.execute(file)
            rewrites = cursor.fetchone() != before
            cursor.execute(COLUMN, [table, "c"])
            column = Column(*cursor.fetchone())
            transaction.set_rollback(True, editor.connection.alias)
    except DatabaseError:
        if not editor.collect_sql:
            raise
        return Trial(None, False)
    return Trial(column, rewrites)

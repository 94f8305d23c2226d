"""Altering a field."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AlterField
from django.db.models import Model

from django_safe_backfill import constraints, progress
from django_safe_backfill.alterations import has_text, is_longer, refusal_of_table
from django_safe_backfill.constraints import check, is_constrained
from django_safe_backfill.ddl import patiently
from django_safe_backfill.errors import SafeMigrationError
from django_safe_backfill.fields import (
    AnyField,
    column_of,
    default_of_operation,
    field_of,
    indexed_as,
    kept,
    no_check,
    of_type,
    variant,
)
from django_safe_backfill.operations.batched import BatchedOperation
from django_safe_backfill.operations.fill import fill, set_not_null
from django_safe_backfill.procedure import schema_of_extension
from django_safe_backfill.session import unlimited


class SafeAlterField(BatchedOperation, AlterField):
    """Alters a field; its arguments are those of AlterField.

    A field that becomes NOT NULL is filled with its default before, where it has one, as AlterField does. Indexes and
    constraints are built while the table is read and written. What would rewrite or read the table under a strong lock
    is refused. The reverse is the opposite change, done in the same way; but a column whose type was made longer keeps
    it, since no row has to be read for that."""

    def apply(self, editor: BaseDatabaseSchemaEditor, from_model: type[Model], to_model: type[Model]) -> None:
        self.change(editor, from_model, to_model)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        if schema_editor.connection.vendor != "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
        else:
            self.run(self.apply_backwards, app_label, schema_editor, from_state, to_state)

    def apply_backwards(self, editor: BaseDatabaseSchemaEditor, from_model: type[Model], to_model: type[Model]) -> None:
        """Takes the change back, on PostgreSQL."""
        self.change(editor, from_model, to_model, keeps_type=True)

    def change(
        self,
        editor: BaseDatabaseSchemaEditor,
        from_model: type[Model],
        to_model: type[Model],
        *,
        keeps_type: bool = False,
    ) -> None:
        """Changes the column, if there is something to change. `keeps_type` says that it may keep a longer type."""
        old, new = field_of(from_model, self.name), field_of(to_model, self.name)
        with default_of_operation(self, new):
            if not editor._field_should_be_altered(old, new):
                return
            actual = as_it_is(editor, from_model, old)
            longer = longer_type(editor, from_model, old, new)
            # It may also have been kept by an earlier operation.
            if longer and (keeps_type or (actual is not old and is_longer(type_of(editor, old), type_of(editor, new)))):
                progress.tell(f"The column of {new} keeps the type {longer}, which holds all its values.")
                new = of_type(new, longer)
            self.require_change(editor, from_model, actual, new)
            self.alter(editor, from_model, to_model, old, new)

    def require_change(
        self, editor: BaseDatabaseSchemaEditor, model: type[Model], old: AnyField, new: AnyField
    ) -> None:
        """Raises SafeMigrationError where the change cannot be made safely."""
        reason = refusal_of_table(editor, model, old, new)
        if reason:
            raise SafeMigrationError(
                f"{type(self).__name__} cannot alter {new}: {reason}.\n"
                "HINT: Use AlterField knowingly, in a migration of its own, or add another field."
            )

    def alter(
        self,
        editor: BaseDatabaseSchemaEditor,
        from_model: type[Model],
        to_model: type[Model],
        old: AnyField,
        new: AnyField,
    ) -> None:
        if old.null and not new.null:
            schema_of_extension(editor.connection)
        constraints.require_possible(editor, to_model, new, old)
        if new.null and not old.null:
            drop_not_null(editor, to_model, new)
        between = indexed_as(new, old)
        self.alter_in_place(editor, from_model, as_it_is(editor, from_model, old), between)
        if old.null and not new.null:
            self.fill(editor, to_model, new)
            set_not_null(editor, to_model, new)
        # An index goes once there is another one in its place.
        constraints.build_replacement(editor, to_model, new, old)
        with constraints.none_built_twice(editor):
            self.alter_in_place(editor, from_model, between, kept(old, new))
        constraints.build(editor, to_model, new, old)

    def alter_in_place(
        self, editor: BaseDatabaseSchemaEditor, model: type[Model], old: AnyField, new: AnyField
    ) -> None:
        """Has Django make the changes that are changes of the catalogs alone."""
        before, after = nullable(old, new)
        if not editor._field_should_be_altered(before, after, ignore={"default"}):
            return
        if is_constrained(new):
            # Otherwise Django drops the constraint and proves it again.
            before.__dict__["db_constraint"] = after.__dict__["db_constraint"] = False
        is_new_check = check(editor, new) and not check(editor, old)
        with without_like_indexes(editor), without_checks(editor) if is_new_check else nullcontext():
            patiently(editor, lambda: editor.alter_field(model, before, after))

    def fill(self, editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
        """Gives rows that are NULL what AlterField gives them."""
        if field.has_db_default():
            fill(editor, model, field, field._db_default_expression, batch_size=self.batch_size)
            return
        value = editor.effective_default(field)
        if value is not None:
            if field.unique and not editor.collect_sql:
                require_one_null(editor, model, field)
            fill(editor, model, field, value, batch_size=self.batch_size)


class SafeSetNotNull(SafeAlterField):
    """Makes a field NOT NULL, and changes nothing else; rows that are NULL are an error. The reverse drops NOT NULL."""

    def require_change(
        self, editor: BaseDatabaseSchemaEditor, model: type[Model], old: AnyField, new: AnyField
    ) -> None:
        before, after = nullable(old, new)
        if editor._field_should_be_altered(before, after, ignore={"default"}):
            raise SafeMigrationError(
                f"SafeSetNotNull changes only whether {new} may be NULL.\nHINT: Use SafeAlterField."
            )

    def fill(self, editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
        """Leaves rows as they are."""


@contextmanager
def without_checks(editor: BaseDatabaseSchemaEditor) -> Iterator[None]:
    """The editor does not see the CHECKs that belong to types of fields: it would prove them under its lock."""
    editor._field_db_check = no_check
    try:
        yield
    finally:
        del editor._field_db_check


@contextmanager
def without_like_indexes(editor: BaseDatabaseSchemaEditor) -> Iterator[None]:
    """The editor makes no index for LIKE, as it does when the type of an indexed column becomes text."""
    editor._create_like_index_sql = lambda model, field: None
    try:
        yield
    finally:
        del editor._create_like_index_sql


def nullable(old: AnyField, new: AnyField) -> tuple[AnyField, AnyField]:
    """Both fields, but for whether they may be NULL."""
    return variant(old, null=True), variant(new, null=True)


def longer_type(editor: BaseDatabaseSchemaEditor, model: type[Model], old: AnyField, new: AnyField) -> str | None:
    """The type of the column, if it holds all values of the new type and more."""
    if not has_text(editor.connection, old, new):
        return None
    found = None if editor.collect_sql else column_of(editor, model, old)
    wanted, actual = type_of(editor, new), type_of(editor, old)
    if found is not None:
        actual = found.type.replace("character varying", "varchar")
    return actual if actual != wanted and is_longer(wanted, actual) else None


def type_of(editor: BaseDatabaseSchemaEditor, field: AnyField) -> str:
    return str(field.db_parameters(editor.connection)["type"])


def as_it_is(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> AnyField:
    """The field with the type of its column, where that was kept longer than the field's."""
    longer = longer_type(editor, model, field, field)
    return of_type(field, longer) if longer else field


def require_one_null(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    table, column = editor.quote_name(model._meta.db_table), editor.quote_name(field.column)
    with unlimited(editor.connection), editor.connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM (SELECT FROM {table} WHERE {column} IS NULL LIMIT 2) AS rows")
        (rows,) = cursor.fetchone()
    if rows > 1:
        raise SafeMigrationError(
            f"{field} is unique, and all rows that are NULL would get one value.\n"
            "HINT: Fill them before, by SafeBackfill with an expression."
        )


def drop_not_null(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    table, column = editor.quote_name(model._meta.db_table), editor.quote_name(field.column)
    patiently(editor, lambda: editor.execute(f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL", None))

"""Adding a field."""

from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AddField
from django.db.models import NOT_PROVIDED, Field, Model

from django_safe_backfill import constraints
from django_safe_backfill.ddl import patiently
from django_safe_backfill.errors import SafeMigrationError
from django_safe_backfill.expressions import as_sql, is_expression, require_value
from django_safe_backfill.fields import (
    AnyField,
    bare,
    column_of,
    default_of_operation,
    field_of,
    tried,
    variant,
    without_default,
)
from django_safe_backfill.operations.batched import BatchedOperation
from django_safe_backfill.operations.fill import BATCH_SIZE, fill, set_not_null
from django_safe_backfill.procedure import schema_of_extension
from django_safe_backfill.session import unlimited
from django_safe_backfill.tables import add_table, has_table


class SafeAddField(BatchedOperation, AddField):
    """Adds a field that may be NULL; its arguments are those of AddField.

    Rows that are there get what AddField gives them: the default or `db_default`, if there is one. Then indexes and
    constraints are built, while the table is read and written. The reverse removes the column."""

    def apply(self, editor: BaseDatabaseSchemaEditor, from_model: type[Model], to_model: type[Model]) -> None:
        field = field_of(to_model, self.name)
        if field.many_to_many:
            add_table(editor, from_model, field)
            return
        if field.column is None:
            return
        self.require_field(field)
        require_no_rewrite(editor, from_model, field)
        constraints.require_possible(editor, to_model, field)
        with default_of_operation(self, field):
            # NULL by default is none.
            is_null = getattr(field.db_default, "value", field.db_default) is None
            column = variant(field, db_default=NOT_PROVIDED) if is_null else field
            self.add_column(editor, from_model, to_model, column)
        constraints.build(editor, to_model, field)

    def require_field(self, field: AnyField) -> None:
        """Raises SafeMigrationError for a field that this operation cannot add."""
        if field.primary_key or field.generated:
            kind = "a primary key" if field.primary_key else "a GeneratedField"
            raise SafeMigrationError(
                f"{type(self).__name__} cannot add {kind}, which rewrites the table.\nHINT: Use AddField knowingly."
            )
        if not field.null:
            raise SafeMigrationError(
                f"SafeAddField adds a field that may be NULL, which {field} may not.\nHINT: Use SafeAddNotNullField."
            )

    def add_column(
        self, editor: BaseDatabaseSchemaEditor, from_model: type[Model], to_model: type[Model], field: AnyField
    ) -> None:
        """Adds the column with the values that rows get."""
        if has_to_be_written(editor, from_model, field):
            self.add_written(editor, from_model, to_model, field, default_expression(field))
        else:
            add_bare(editor, from_model, field)

    def add_written(
        self,
        editor: BaseDatabaseSchemaEditor,
        from_model: type[Model],
        to_model: type[Model],
        field: AnyField,
        value: Any,
    ) -> None:
        """Adds the column and writes a value into each row."""
        schema_of_extension(editor.connection)
        column = tried(editor, from_model, bare_nullable(field)).column
        if column is not None and column.has_missing_value:
            raise SafeMigrationError(
                f"the type of {field} is a domain with a default, which all rows that are there would get.\n"
                "HINT: Drop the default of the domain, and give one to the field."
            )
        add_nullable(editor, from_model, field)
        fill(editor, to_model, field, value, batch_size=self.batch_size)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        if schema_editor.connection.vendor != "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
        else:
            self.run(self.apply_backwards, app_label, schema_editor, from_state, to_state)

    def apply_backwards(self, editor: BaseDatabaseSchemaEditor, from_model: type[Model], to_model: type[Model]) -> None:
        """Removes the field, on PostgreSQL."""
        field = field_of(from_model, self.name)
        if editor.collect_sql or is_there(editor, from_model, field):
            patiently(editor, lambda: editor.remove_field(from_model, field))


class SafeAddNotNullField(SafeAddField):
    """Adds a field that is NOT NULL, in one operation: the column, values for the rows that are there, NOT NULL.

    `backfill` is what these rows get: a value, or an expression over the row such as `Lower("email")`. Without it
    they get the default, as with AddField. A constant is not written into the rows, and takes no longer for a large
    table. An expression is filled in, a commit per batch of `batch_size` rows; give the field a `db_default`, so that
    rows that come in meanwhile are not NULL."""

    def __init__(
        self,
        model_name: str,
        name: str,
        field: "Field[Any, Any]",
        preserve_default: bool = True,
        *,
        backfill: Any = NOT_PROVIDED,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(model_name, name, field, preserve_default, batch_size=batch_size)
        if backfill is None:
            raise ValueError("backfill cannot be None: the field is NOT NULL")
        if backfill is not NOT_PROVIDED:
            require_value("backfill", backfill)
        self.backfill = backfill

    def deconstruct(self) -> Any:
        name, arguments, options = super().deconstruct()
        if self.backfill is not NOT_PROVIDED:
            options["backfill"] = self.backfill
        return name, arguments, options

    @property
    def reads_row(self) -> bool:
        return is_expression(self.backfill)

    def require_field(self, field: AnyField) -> None:
        if field.null:
            raise SafeMigrationError(
                f"SafeAddNotNullField adds a field that is NOT NULL, which {field} is not.\nHINT: Use SafeAddField."
            )
        super().require_field(variant(field, null=True))

    def add_column(
        self, editor: BaseDatabaseSchemaEditor, from_model: type[Model], to_model: type[Model], field: AnyField
    ) -> None:
        if is_expression(self.backfill):
            # A bad one fails before anything is changed.
            as_sql(editor, to_model, self.backfill)
            self.add_written(editor, from_model, to_model, field, self.backfill)
        elif self.backfill is not NOT_PROVIDED:
            add_with_value(editor, from_model, field, self.backfill)
            value = field.get_db_prep_save(self.backfill, editor.connection)
            self.finish(editor, to_model, field, value)
        elif not field.has_db_default() and editor.effective_default(field) is None:
            raise SafeMigrationError(
                f"there is no value for the rows that are there: {field} has no default.\n"
                f"HINT: Give {type(self).__name__} a backfill."
            )
        else:
            super().add_column(editor, from_model, to_model, field)
            value = default_expression(field) if field.has_db_default() else editor.effective_default(field)
            self.finish(editor, to_model, field, value)

    def add_written(
        self,
        editor: BaseDatabaseSchemaEditor,
        from_model: type[Model],
        to_model: type[Model],
        field: AnyField,
        value: Any,
    ) -> None:
        super().add_written(editor, from_model, to_model, field, value)
        set_not_null(editor, to_model, field)

    def finish(self, editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, value: Any) -> None:
        """Makes the column NOT NULL where it is not yet: it was there before."""
        column = None if editor.collect_sql else column_of(editor, model, field)
        if column is not None and not column.is_not_null:
            fill(editor, model, field, value, batch_size=self.batch_size)
            set_not_null(editor, model, field)

    def apply_elsewhere(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if self.backfill is NOT_PROVIDED:
            super().apply_elsewhere(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        field = field_of(model, self.name)
        with_null = variant(field, null=True)
        schema_editor.add_field(from_state.apps.get_model(app_label, self.model_name), with_null)
        model._base_manager.using(schema_editor.connection.alias).update(**{self.name: self.backfill})
        schema_editor.alter_field(model, with_null, field)


def require_no_rewrite(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    if tried(editor, model, bare_nullable(field)).rewrites:
        raise SafeMigrationError(
            f"the type of {field} is a domain with constraints or a volatile default:"
            " PostgreSQL rewrites the table to add it.\n"
            "HINT: Use AddField knowingly; or the type that the domain is of, and a constraint."
        )


def bare_nullable(field: AnyField) -> AnyField:
    """The column without a value for any row."""
    return without_default(bare(field, null=True), db_default=NOT_PROVIDED)


def has_to_be_written(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> bool:
    """Whether the default differs from row to row, so that PostgreSQL would rewrite the table."""
    return has_default(editor, field) and tried(editor, model, bare(field)).rewrites


def has_default(editor: BaseDatabaseSchemaEditor, field: AnyField) -> bool:
    """Whether rows that are there get a value when the field is added."""
    return field.has_db_default() or editor.effective_default(field) is not None


def default_expression(field: AnyField) -> Any:
    """What makes the default for a row."""
    if not field.has_db_default():
        raise SafeMigrationError(
            f"the type of {field} does not take a default without a rewrite of the table.\n"
            "HINT: Add it without a default, then fill it with SafeBackfill."
        )
    return field._db_default_expression


def add_nullable(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    """Adds the column without a value for the rows that are there; `db_default` is for new ones."""
    without = bare_nullable(field)

    def alter() -> None:
        editor.add_field(model, without)
        if field.has_db_default():
            editor.alter_field(model, without, variant(without, db_default=field.db_default))

    add(editor, model, field, alter)


def add_bare(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    """Adds the column as Django does, without what has to be built or proven."""
    add(editor, model, field, lambda: editor.add_field(model, bare(field)), gives_value=has_default(editor, field))


def add_with_value(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, value: Any) -> None:
    """Adds the column with a value for the rows that are there, and the default of the field for new ones."""
    with_value = bare(field, default=value, db_default=NOT_PROVIDED)

    def alter() -> None:
        editor.add_field(model, with_value)
        if field.has_db_default():
            editor.alter_field(model, with_value, bare(field))

    if tried(editor, model, with_value).rewrites:
        raise SafeMigrationError(
            f"the type of {field} does not take a value without a rewrite of the table.\n"
            "HINT: Use SafeAddField, SafeBackfill and SafeSetNotNull."
        )
    add(editor, model, field, alter, gives_value=True)


def add(
    editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField, alter: Any, *, gives_value: bool = False
) -> None:
    """Adds the column with `alter`, if it is not there: an attempt that was stopped has added it whole, or not at all.

    `gives_value` says that all rows that are there get one value. Raises SafeMigrationError where these are to be
    unique, and where there is a column of the name that is another one."""
    found = None if editor.collect_sql else column_of(editor, model, field)
    if found is None:
        if gives_value and field.unique:
            require_one_row(editor, model, field)
        patiently(editor, alter)
        return
    expected = tried(editor, model, without_default(bare(field, null=True))).column
    if expected is not None and found.definition != expected.definition:
        raise another_column(model, field, f"{found.definition} and not {expected.definition}")
    if field.null and found.is_not_null:
        raise another_column(model, field, "which is NOT NULL")
    is_without_value = field.null and not (found.has_missing_value or constraints.is_partitioned(editor, model))
    if gives_value and is_without_value and has_null(editor, model, field):
        raise another_column(model, field, "in which rows are NULL that should have the default")


def require_one_row(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> None:
    if not editor.collect_sql and model._base_manager.using(editor.connection.alias).order_by()[:2].count() > 1:
        raise SafeMigrationError(
            f"{field} is unique, and all rows that are there would get one value.\n"
            "HINT: Use SafeAddField without a default, SafeBackfill with an expression, then SafeAlterField."
        )


def has_null(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> bool:
    """Whether a row is NULL; all rows are read where none is."""
    table, column = editor.quote_name(model._meta.db_table), editor.quote_name(field.column)
    with unlimited(editor.connection), editor.connection.cursor() as cursor:
        cursor.execute(f"SELECT EXISTS (SELECT FROM {table} WHERE {column} IS NULL)")
        return bool(cursor.fetchone()[0])


def another_column(model: type[Model], field: AnyField, how: str) -> SafeMigrationError:
    return SafeMigrationError(
        f'table {model._meta.db_table} has a column "{field.column}" already, {how}.\n'
        "HINT: If it is not needed, drop it. Otherwise make it as the field has it, with its indexes and constraints,"
        " and run migrate with --fake."
    )


def is_there(editor: BaseDatabaseSchemaEditor, model: type[Model], field: AnyField) -> bool:
    """Whether the database has the column, or the table, of the field."""
    if field.many_to_many:
        return has_table(editor, field)
    return field.column is not None and column_of(editor, model, field) is not None

"""What the operations have in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from django.db import DatabaseError, NotSupportedError
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.fields import AlterField, FieldOperation, RenameField
from django.db.models import Model

from django_safe_backfill import progress
from django_safe_backfill.errors import SafeMigrationError, in_words
from django_safe_backfill.procedure import interrupted

Apply: TypeAlias = Callable[[BaseDatabaseSchemaEditor, type[Model], type[Model]], None]

ALONE = "put it into a migration of its own, with atomic = False"


@contextmanager
def in_words_of_its_own(editor: BaseDatabaseSchemaEditor) -> Iterator[None]:
    """An error, and Ctrl-C, is told on a line of its own and without a traceback."""
    try:
        yield
    except SafeMigrationError:
        progress.break_line()
        raise
    except DatabaseError as error:
        progress.break_line()
        raise SafeMigrationError(in_words(error)) from error
    except KeyboardInterrupt:
        raise interrupted(editor.connection) from None


class SafeOperation(FieldOperation):
    """An operation on a field that commits as it goes. Goes before Django's operation in the order of base classes.

    On other databases than PostgreSQL, it is Django's operation."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        if schema_editor.connection.vendor != "postgresql":
            self.apply_elsewhere(app_label, schema_editor, from_state, to_state)
        else:
            self.run(self.apply, app_label, schema_editor, from_state, to_state)

    def run(
        self, apply: Apply, app_label: str, editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Calls `apply`, on PostgreSQL, if the database has the model."""
        from_model, to_model = (state.apps.get_model(app_label, self.model_name) for state in (from_state, to_state))
        if self.allow_migrate_model(editor.connection.alias, to_model):
            self.require_session(editor)
            with in_words_of_its_own(editor):
                apply(editor, from_model, to_model)

    def apply(self, editor: BaseDatabaseSchemaEditor, from_model: type[Model], to_model: type[Model]) -> None:
        """Does it, on PostgreSQL."""
        raise NotImplementedError

    def apply_elsewhere(self, *arguments: Any) -> None:
        """Does it, on another database."""
        super().database_forwards(*arguments)

    def require_session(self, editor: BaseDatabaseSchemaEditor) -> None:
        """Raises where the operation could not commit, or could not hear what the server says."""
        if editor.connection.in_atomic_block:
            raise NotSupportedError(f"{type(self).__name__} cannot run inside a transaction: {ALONE}.")
        editor.connection.ensure_connection()
        if not hasattr(editor.connection.connection, "add_notice_handler"):
            raise SafeMigrationError("django-safe-backfill needs psycopg 3, and not psycopg2.")

    def describe(self) -> str:
        return f"{super().describe()} ({type(self).__name__})"

    def reduce(self, operation: Operation, app_label: str) -> Any:
        # Merged with these it would not do what it did, or not safely.
        if isinstance(operation, AlterField | RenameField) and self.is_same_field_operation(operation):
            return False
        is_elided = self.elidable or operation.elidable
        if self.reads_row and not is_elided and not self.is_of_same_field(operation):
            return False
        return super().reduce(operation, app_label)

    @property
    def reads_row(self) -> bool:
        """Whether it may use any field of the row, and raw SQL of other models: nothing may move across."""
        return False

    def references_model(self, name: str, app_label: str) -> bool:
        return self.reads_row or super().references_model(name, app_label)

    def references_field(self, model_name: str, name: str, app_label: str) -> bool:
        return self.reads_row or super().references_field(model_name, name, app_label)

    def is_of_same_field(self, operation: Operation) -> bool:
        return isinstance(operation, FieldOperation) and self.is_same_field_operation(operation)

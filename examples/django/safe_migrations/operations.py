"""Migration operations that leave a busy table usable.

They run pg_safe_backfill's procedures, which commit as they go: the migration needs `atomic = False`. A migration that
was stopped is simply run again, as each of them goes on from where it was.
"""

from django.contrib.postgres.operations import NotInTransactionMixin
from django.db import NotSupportedError
from django.db.migrations.operations import AddField, AlterField
from django.db.migrations.operations.base import OperationCategory
from django.db.migrations.operations.fields import FieldOperation
from django.db.models import NOT_PROVIDED

from safe_migrations.lock import patiently
from safe_migrations.procedure import call


class AddColumn(NotInTransactionMixin, AddField):
    """Adds a nullable field. `db_default` is for new rows alone: those that are there stay NULL, to be backfilled."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        self._ensure_not_in_transaction(schema_editor)
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        field = model._meta.get_field(self.name)
        require_plain(field, schema_editor.connection)
        column_type = field.db_type(schema_editor.connection)
        table = schema_editor.quote_name(model._meta.db_table)
        call(schema_editor, "safe_add_column", table, field.column, column_type)
        if field.has_db_default():
            # Given with the column, it would become the value of the rows that are there already.
            without_default = variant(field, db_default=NOT_PROVIDED)
            patiently(schema_editor, schema_editor.alter_field, model, without_default, field)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        self._ensure_not_in_transaction(schema_editor)
        patiently(schema_editor, super().database_backwards, app_label, schema_editor, from_state, to_state)


class SafeBackfill(NotInTransactionMixin, FieldOperation):
    """Fills a field where it is NULL, a commit per batch. Its reverse does nothing."""

    category = OperationCategory.PYTHON
    reduces_to_sql = True
    reversible = True
    procedure = "safe_backfill"

    def __init__(self, model_name, name, value, batch_size=10000, filter=None):
        super().__init__(model_name, name)
        self.value = value
        self.batch_size = batch_size
        self.filter = filter

    def deconstruct(self):
        kwargs = {
            "model_name": self.model_name,
            "name": self.name,
            "value": self.value,
            "batch_size": self.batch_size,
            "filter": self.filter,
        }
        return self.__class__.__name__, [], kwargs

    def state_forwards(self, app_label, state):
        pass

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        self._ensure_not_in_transaction(schema_editor)
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        field = model._meta.get_field(self.name)
        call(
            schema_editor,
            self.procedure,
            schema_editor.quote_name(model._meta.db_table),
            field.column,
            self.content(field, schema_editor.connection),
            batch_size=self.batch_size,
            filter=self.filter,
        )

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        pass

    def content(self, field, connection):
        return field.get_db_prep_save(self.value, connection)

    def describe(self):
        return f"Backfill field {self.name} on {self.model_name}"

    @property
    def migration_name_fragment(self):
        return f"backfill_{self.model_name_lower}_{self.name_lower}"


class SafeBackfillUsing(SafeBackfill):
    """Fills a field with an SQL expression over the row, such as `lower(email)`."""

    procedure = "safe_backfill_using"

    def content(self, field, connection):
        return self.value


class SafeSetNotNull(NotInTransactionMixin, AlterField):
    """Makes a field NOT NULL, and changes nothing else. Reads and writes go on while its rows are looked at."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        self._ensure_not_in_transaction(schema_editor)
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        field = model._meta.get_field(self.name)
        old_model = from_state.apps.get_model(app_label, self.model_name)
        old_field = old_model._meta.get_field(self.name)
        if schema_editor._field_should_be_altered(old_field, variant(field, null=True)):
            raise NotSupportedError(
                f"SafeSetNotNull changes only the null of {field}; "
                "change the rest with AlterField, in a migration before."
            )
        table = schema_editor.quote_name(model._meta.db_table)
        call(schema_editor, "safe_set_not_null", table, field.column)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        self._ensure_not_in_transaction(schema_editor)
        patiently(schema_editor, super().database_forwards, app_label, schema_editor, from_state, to_state)

    def describe(self):
        return f"Set field {self.name} on {self.model_name} to NOT NULL"


def variant(field, **attributes):
    """A field of the same column with other attributes."""
    other = field.clone()
    for name, value in attributes.items():
        setattr(other, name, value)
    other.set_attributes_from_name(field.name)
    other.model = field.model
    return other


def is_plain(field, connection):
    """Whether the field is a type and a default, and nothing that PostgreSQL would have to prove or build."""
    parameters = field.db_parameters(connection)
    return field.null and not (
        field.primary_key
        or field.unique
        or field.db_index
        or field.generated
        or field.remote_field
        or field.db_comment
        or parameters["check"]
        or parameters.get("collation")
    )


def require_plain(field, connection):
    if not is_plain(field, connection):
        raise NotSupportedError(
            f"AddColumn adds a nullable column alone, which {field} is not; "
            "add constraints, indexes and comments in migrations of their own."
        )

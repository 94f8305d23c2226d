from django.db import connection
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.operations import AddField, AlterField

from safe_migrations.operations import AddColumn, SafeSetNotNull, is_plain


class SafeAutodetector(MigrationAutodetector):
    """Finds the same changes as Django's own, and takes the safe operation for each that has one."""

    def add_operation(self, app_label, operation, *args, **kwargs):
        if type(operation) is AddField and adds_plain_column(operation):
            operation = safely(AddColumn, operation)
        elif type(operation) is AlterField and self.becomes_not_null(app_label, operation):
            operation = safely(SafeSetNotNull, operation)
        super().add_operation(app_label, operation, *args, **kwargs)

    def becomes_not_null(self, app_label, operation):
        model = self.from_state.models.get((app_label, operation.model_name_lower))
        old_field = model and model.fields.get(operation.name)
        return bool(old_field and old_field.null and not operation.field.null)


def adds_plain_column(operation):
    field = operation.field.clone()
    field.set_attributes_from_name(operation.name)
    return not field.many_to_many and is_plain(field, connection)


def safely(kind, operation):
    return kind(operation.model_name, operation.name, operation.field, operation.preserve_default)

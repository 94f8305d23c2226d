"""Finds the same changes as Django's autodetector, and takes the safe operation for each that has one."""

from itertools import groupby
from typing import Any

from django.db import connections, router
from django.db.migrations import AddField, AlterField, Migration
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.operations.base import Operation

from django_safe_backfill import SafeAddField, SafeAddNotNullField, SafeAlterField
from django_safe_backfill.alterations import concerns_database, refusal
from django_safe_backfill.operations import SafeOperation


class SafeAutodetector(MigrationAutodetector):
    """Safe operations are in migrations of their own that are not atomic, in the place that they had."""

    def _optimize_migrations(self) -> None:
        # Before operations are taken apart, Django may merge them.
        super()._optimize_migrations()  # type: ignore[misc]
        self.migrations: dict[str, list[Migration]] = {
            label: [part for migration in migrations for part in self.parts(migration)]
            for label, migrations in self.migrations.items()
        }

    def parts(self, migration: Migration) -> list[Migration]:
        """The migration, or several in its place, of which the last has its name: others depend on that."""
        operations = [self.in_place_of(migration.app_label, operation) for operation in migration.operations]
        groups = [list(group) for _, group in groupby(operations, is_safe)]
        if not any(map(is_safe, operations)):
            return [migration]
        return self.chained(migration, groups)

    def chained(self, migration: Migration, groups: list[list[Operation]]) -> list[Migration]:
        parts: list[Migration] = []
        for number, operations in enumerate(groups, start=1):
            name = migration.name if number == len(groups) else f"{migration.name}_part_{number}"
            part = type("Migration", (Migration,), {})(name, migration.app_label)
            part.operations = operations
            part.dependencies = list(migration.dependencies)
            if parts:
                part.dependencies.append((migration.app_label, parts[-1].name))
            part.initial = migration.initial if number == 1 else None
            part.atomic = not is_safe(operations[0])
            parts.append(part)
        return parts

    def in_place_of(self, app_label: str, operation: Operation) -> Operation:
        """The safe operation, or the one that is given."""
        if type(operation) is AddField and self.has_table(app_label, operation.model_name):
            return safe_addition(operation)
        if type(operation) is AlterField and self.has_table(app_label, operation.model_name):
            return self.safe_alteration(app_label, operation)
        return operation

    def has_table(self, app_label: str, model_name: str) -> bool:
        """Whether the model had a table before these changes, in a PostgreSQL database."""
        state = self.from_state.models.get((app_label, model_name.lower()))
        if state is None or state.options.get("proxy") or not state.options.get("managed", True):
            return False
        return any(
            connections[alias].vendor == "postgresql"
            and router.allow_migrate(alias, app_label, model_name=model_name.lower())
            for alias in connections
        )

    def safe_alteration(self, app_label: str, operation: AlterField) -> Operation:
        if operation.name not in self.from_state.models[app_label, operation.model_name.lower()].fields:
            # The field is renamed as well.
            return operation
        old, new = (
            state.apps.get_model(app_label, operation.model_name)._meta.get_field(operation.name)
            for state in (self.from_state, self.to_state)
        )
        connection = next(connections[alias] for alias in connections if connections[alias].vendor == "postgresql")
        if refusal(connection, old, new) or not concerns_database(connection, old, new):
            return operation
        return SafeAlterField(operation.model_name, operation.name, operation.field, operation.preserve_default)


def is_safe(operation: Operation) -> bool:
    return isinstance(operation, SafeOperation)


def safe_addition(operation: AddField) -> Operation:
    field = operation.field
    if field.many_to_many or field.primary_key or field.generated:
        return operation
    kind = SafeAddField if field.null else SafeAddNotNullField
    arguments: tuple[Any, ...] = (operation.model_name, operation.name, field, operation.preserve_default)
    return kind(*arguments)

"""System checks."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.db.migrations import Migration, SeparateDatabaseAndState
from django.db.migrations.exceptions import BadMigrationError
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation

from django_safe_backfill import conf
from django_safe_backfill.operations import SafeAddField, SafeAlterField, SafeOperation, SafeSetNotNull


def check_setting(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The setting SAFE_BACKFILL is understood."""
    try:
        conf.read()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="safe_backfill.E003")]
    return []


def check_migrations(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Safe operations commit as they go, and are run again after they were stopped: they need migrations of their own.

    Reads the files of migrations, and no database."""
    loader = MigrationLoader(None, load=False)
    try:
        loader.load_disk()
    except (BadMigrationError, ImportError):
        # Django's own commands say what is wrong with it.
        return []
    labels = {config.label for config in app_configs} if app_configs is not None else None
    return [
        message
        for (label, _), migration in sorted(loader.disk_migrations.items())
        if labels is None or label in labels
        for message in found_in(migration)
    ]


def found_in(migration: Migration) -> Iterator[CheckMessage]:
    """What is wrong with a migration."""
    operations = list(on_database(migration.operations))
    safe = [operation for operation in operations if isinstance(operation, SafeOperation)]
    if not safe:
        return
    first = type(safe[0]).__name__
    if migration.atomic:
        yield Error(
            f"{first} cannot run inside a transaction.",
            hint="Set atomic = False in the migration, as a line above its operations.",
            obj=migration,
            id="safe_backfill.E001",
        )
    if len(safe) < len(operations) or changes_a_field_twice(safe):
        yield Error(
            f"{first} stands beside other operations: if one of them is stopped, those before it are run again.",
            hint="Put it into a migration of its own, or beside safe operations on other fields.",
            obj=migration,
            id="safe_backfill.E002",
        )


def changes_a_field_twice(operations: Sequence[SafeOperation]) -> bool:
    """Whether a field is added and altered: run again, the first operation would find what the second has made."""
    changed = [
        (operation.model_name_lower, operation.name_lower)
        for operation in operations
        if isinstance(operation, SafeAddField | SafeAlterField) and not isinstance(operation, SafeSetNotNull)
    ]
    return len(set(changed)) < len(changed)


def on_database(operations: Sequence[Operation]) -> Iterator[Operation]:
    """The operations that change a database."""
    for operation in operations:
        if isinstance(operation, SeparateDatabaseAndState):
            yield from on_database(operation.database_operations)
        else:
            yield operation

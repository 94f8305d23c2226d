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
from django_safe_backfill.operations.base import SafeOperation


def check_setting(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """The setting SAFE_BACKFILL is understood."""
    try:
        conf.read()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="safe_backfill.E003")]
    return []


def check_migrations(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """A safe operation commits as it goes, and is run again after it was stopped: it needs a migration of its own.

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
    if len(operations) > 1:
        yield Error(
            f"{first} stands beside other operations: if one of them is stopped, those before it are run again.",
            hint=f"Put each {first} into a migration of its own.",
            obj=migration,
            id="safe_backfill.E002",
        )


def on_database(operations: Sequence[Operation]) -> Iterator[Operation]:
    """The operations that change a database."""
    for operation in operations:
        if isinstance(operation, SeparateDatabaseAndState):
            yield from on_database(operation.database_operations)
        else:
            yield operation

"""Django's own command, with safe operations."""

from typing import Any

from django.core.management.commands import makemigrations
from django.db.migrations.writer import MigrationWriter

from django_safe_backfill.makemigrations.autodetector import SafeAutodetector
from django_safe_backfill.operations import SafeOperation

HEADER = "class Migration(migrations.Migration):\n"
ATOMIC = "    atomic = False\n"


class SafeMigrationWriter(MigrationWriter):
    """Before Django 6.1, its own does not write whether a migration is atomic."""

    def as_string(self) -> str:
        text = super().as_string()
        if self.migration.atomic or ATOMIC in text:
            return text
        return text.replace(HEADER, f"{HEADER}\n{ATOMIC}", 1)


class Command(makemigrations.Command):
    """Django's own, with safe operations where tables are there already, in migrations of their own."""

    def handle(self, *args: Any, **options: Any) -> Any:
        # One migration cannot take several. The autodetector of the class has to be that of `migrate`.
        if not options["update"]:
            self.autodetector = SafeAutodetector  # type: ignore[misc]
        writer = makemigrations.MigrationWriter
        makemigrations.MigrationWriter = SafeMigrationWriter
        try:
            return super().handle(*args, **options)
        finally:
            makemigrations.MigrationWriter = writer

    def write_migration_files(self, changes: Any, *args: Any, **kwargs: Any) -> None:
        super().write_migration_files(changes, *args, **kwargs)
        operations = [
            operation
            for migrations in changes.values()
            for migration in migrations
            for operation in migration.operations
        ]
        if self.verbosity >= 1 and any(isinstance(operation, SafeOperation) for operation in operations):
            self.log("Safe operations took the place of Django's own, in migrations that are not atomic.")

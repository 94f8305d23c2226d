from pathlib import Path

from django.core.management.commands import makemigrations

from safe_migrations import operations
from safe_migrations.autodetector import SafeAutodetector

HEADER = "class Migration(migrations.Migration):\n"


class Command(makemigrations.Command):
    """Django's own, with safe operations, in migrations that run outside a transaction as those demand."""

    autodetector = SafeAutodetector

    def write_migration_files(self, *args, **kwargs):
        super().write_migration_files(*args, **kwargs)
        for path in map(Path, self.written_files):
            text = path.read_text(encoding="utf-8")
            if operations.__name__ in text:
                text = text.replace(HEADER, f"{HEADER}\n    atomic = False\n")
                path.write_text(text, encoding="utf-8")

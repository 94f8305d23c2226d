from django.core.management import call_command
from django.core.management.commands import migrate


class Command(migrate.Command):
    """Django's own, with the `--list` that it had once: `showmigrations` by another name."""

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.add_argument("--list", action="store_true", help="Shows all migrations and which are applied.")

    def handle(self, *args, **options):
        if not options["list"]:
            return super().handle(*args, **options)
        labels = [options["app_label"]] if options["app_label"] else []
        call_command("showmigrations", *labels, database=options["database"])

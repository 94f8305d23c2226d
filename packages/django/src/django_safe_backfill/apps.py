"""The application, for INSTALLED_APPS: system checks, and what a migration says while it runs."""

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.models.signals import post_migrate, pre_migrate

from django_safe_backfill import checks, progress


class SafeBackfillConfig(AppConfig):
    name = "django_safe_backfill"
    verbose_name = "Safe backfill"

    def ready(self) -> None:
        register(checks.check_setting)
        register(checks.check_migrations, Tags.models)
        pre_migrate.connect(progress.begin, dispatch_uid="django_safe_backfill.begin")
        post_migrate.connect(progress.end, dispatch_uid="django_safe_backfill.end")

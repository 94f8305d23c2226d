import os

SECRET_KEY = "not a secret"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django_safe_backfill"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def postgresql(name: str) -> dict[str, str]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("SAFE_BACKFILL_HOST", ""),
        "PORT": "5432",
        "USER": "postgres",
        "NAME": name,
    }


DATABASES = {
    "default": postgresql("tests"),
    "without": postgresql("without_extension"),
    "sqlite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}

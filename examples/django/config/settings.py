import os

# Signs nothing: the example has no sessions and no forms.
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "not a secret")
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
INSTALLED_APPS = ["django_safe_backfill", "django_safe_backfill.makemigrations", "demoapp"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
USE_TZ = True
TIME_ZONE = "UTC"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("DATABASE_HOST", "localhost"),
        "PORT": os.environ.get("DATABASE_PORT", "5432"),
        "NAME": os.environ.get("DATABASE_NAME", "risky_migrations"),
        "USER": os.environ.get("DATABASE_USER", "postgres"),
        "PASSWORD": os.environ.get("DATABASE_PASSWORD", ""),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

MIGRATION_WAYS = {"safe": "demoapp.migrations", "risky": "demoapp.risky_migrations"}
MIGRATION_MODULES = {"demoapp": MIGRATION_WAYS[os.environ.get("MIGRATION_WAY", "safe")]}

# The health checks of Docker Compose would hide everything else.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "no_health_checks": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: "/health/" not in record.getMessage(),
        }
    },
    "handlers": {"requests": {"class": "logging.StreamHandler", "filters": ["no_health_checks"]}},
    "loggers": {"django.server": {"handlers": ["requests"], "level": "INFO", "propagate": False}},
}

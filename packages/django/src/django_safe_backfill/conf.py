"""The setting SAFE_BACKFILL."""

import re
from dataclasses import dataclass, fields

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

# Whole units: PostgreSQL takes less than a millisecond for none, and then waits for ever.
TIME = re.compile(r"\d+\s*(ms|s|min|h|d)?")


@dataclass(frozen=True)
class Conf:
    """How long DDL waits for its locks.

    Whoever comes while a statement waits for its lock waits behind it, so it must not wait long. A little longer than
    `deadlock_timeout`, though: after that time autovacuum gives way.
    """

    # A time as PostgreSQL reads it, or milliseconds.
    LOCK_TIMEOUT: str | int = "1500ms"
    ATTEMPTS: int = 30
    # Seconds between two attempts.
    PAUSE: float = 1.0

    def __post_init__(self) -> None:
        timeout = self.LOCK_TIMEOUT
        if isinstance(timeout, bool) or not TIME.fullmatch(str(timeout)) or not re.search("[1-9]", str(timeout)):
            raise ImproperlyConfigured("SAFE_BACKFILL['LOCK_TIMEOUT'] must be a time above zero, such as \"1500ms\".")
        if type(self.ATTEMPTS) is not int or self.ATTEMPTS < 1:
            raise ImproperlyConfigured("SAFE_BACKFILL['ATTEMPTS'] must be an integer of at least 1.")
        if isinstance(self.PAUSE, bool) or not isinstance(self.PAUSE, int | float) or self.PAUSE < 0:
            raise ImproperlyConfigured("SAFE_BACKFILL['PAUSE'] must be a number of seconds.")


def read() -> Conf:
    """The setting, or its defaults.

    Raises ImproperlyConfigured."""
    given = getattr(settings, "SAFE_BACKFILL", {})
    known = [field.name for field in fields(Conf)]
    if not isinstance(given, dict) or not set(given) <= set(known):
        raise ImproperlyConfigured(f"SAFE_BACKFILL must be a dictionary with some of the keys {', '.join(known)}.")
    return Conf(**given)

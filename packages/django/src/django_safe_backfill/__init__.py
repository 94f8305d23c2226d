"""Migration operations that leave a busy PostgreSQL table usable, by the extension pg_safe_backfill."""

from django_safe_backfill.operations import (
    SafeAddField,
    SafeAddNotNullField,
    SafeAlterField,
    SafeBackfill,
    SafeSetNotNull,
)

__all__ = ["SafeAddField", "SafeAddNotNullField", "SafeAlterField", "SafeBackfill", "SafeSetNotNull"]

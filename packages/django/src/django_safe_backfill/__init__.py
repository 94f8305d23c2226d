"""Migration operations that leave a busy PostgreSQL table usable, by the extension pg_safe_backfill."""

from django_safe_backfill.operations import (
    SafeAddField,
    SafeAddNotNullField,
    SafeAlterField,
    SafeBackfill,
    SafeSetNotNull,
)

for operation in (SafeAddField, SafeAddNotNullField, SafeAlterField, SafeBackfill, SafeSetNotNull):
    # Migrations that are written import it from here, where it will stay.
    operation.__module__ = __name__
del operation

__all__ = ["SafeAddField", "SafeAddNotNullField", "SafeAlterField", "SafeBackfill", "SafeSetNotNull"]

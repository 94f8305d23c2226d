"""Operations for migrations that are `atomic = False`. A migration that was stopped is run again, and goes on."""

from django_safe_backfill.operations.add import SafeAddField, SafeAddNotNullField
from django_safe_backfill.operations.alter import SafeAlterField, SafeSetNotNull
from django_safe_backfill.operations.backfill import SafeBackfill
from django_safe_backfill.operations.base import SafeOperation

__all__ = [
    "SafeAddField",
    "SafeAddNotNullField",
    "SafeAlterField",
    "SafeBackfill",
    "SafeOperation",
    "SafeSetNotNull",
]

"""Operations that stand beside Django's, and may fill rows."""

from typing import TYPE_CHECKING, Any

from django_safe_backfill.operations.base import SafeOperation
from django_safe_backfill.operations.fill import BATCH_SIZE

if TYPE_CHECKING:
    from django.db.models import Field


class BatchedOperation(SafeOperation):
    """Takes what Django's operation takes, and how many rows a batch has."""

    def __init__(
        self,
        model_name: str,
        name: str,
        field: "Field[Any, Any]",
        preserve_default: bool = True,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        # Of Django's operation, which is the next base class.
        super().__init__(model_name, name, field, preserve_default)  # type: ignore[call-arg]
        self.batch_size = batch_size

    def deconstruct(self) -> Any:
        name, arguments, options = super().deconstruct()
        if self.batch_size != BATCH_SIZE:
            options["batch_size"] = self.batch_size
        return name, arguments, options

"""Filling a field."""

from typing import Any

from django.db import router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import OperationCategory
from django.db.migrations.operations.fields import FieldOperation
from django.db.models import Model, Q

from django_safe_backfill.expressions import is_expression, matches_none, require_value
from django_safe_backfill.fields import field_of
from django_safe_backfill.operations.base import SafeOperation
from django_safe_backfill.operations.fill import BATCH_SIZE, fill


class SafeBackfill(SafeOperation, FieldOperation):
    """Fills a field where it is NULL, a commit per batch. The reverse does nothing.

    `value` is a value of the field, or an expression over the row: `Lower("email")`, `RawSQL("...", [])`. `where`, a Q
    over the row, leaves other rows alone. `batch_size` is 1 to 1,000,000 rows. `method="instant"` gives a value to rows
    that were written before the column was added without writing them; see docs/instant.md of the extension. Where
    rows are NULL still at the end, the migration fails; run it again."""

    category = OperationCategory.PYTHON
    reduces_to_sql = True
    reversible = True

    def __init__(
        self,
        model_name: str,
        name: str,
        value: Any,
        *,
        where: Q | None = None,
        batch_size: int = BATCH_SIZE,
        method: str | None = None,
        elidable: bool = False,
        hints: dict[str, Any] | None = None,
    ) -> None:
        if value is None:
            raise ValueError("the value cannot be None: only rows that are NULL are filled")
        require_value("value", value)
        if method is not None and is_expression(value):
            raise ValueError("a method is for a value, and not for an expression")
        super().__init__(model_name, name)
        self.value = value
        self.where = where
        self.batch_size = batch_size
        self.method = method
        self.elidable = elidable  # type: ignore[misc]
        self.hints = hints or {}

    def deconstruct(self) -> Any:
        options: dict[str, Any] = {"model_name": self.model_name, "name": self.name, "value": self.value}
        if self.where is not None:
            options["where"] = self.where
        if self.batch_size != BATCH_SIZE:
            options["batch_size"] = self.batch_size
        if self.method is not None:
            options["method"] = self.method
        if self.elidable:
            options["elidable"] = True
        if self.hints:
            options["hints"] = self.hints
        return type(self).__name__, [], options

    @property
    def reads_row(self) -> bool:
        return True

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass

    def allow_migrate_model(self, connection_alias: Any, model: type[Model]) -> bool:
        """Proxies and models that are not managed have rows, too."""
        return (
            not model._meta.swapped
            and router.allow_migrate_model(connection_alias, model)
            and (not self.hints or router.allow_migrate(connection_alias, model._meta.app_label, **self.hints))
        )

    def apply(self, editor: BaseDatabaseSchemaEditor, from_model: type[Model], to_model: type[Model]) -> None:
        if matches_none(editor, to_model, self.where):
            return
        field = field_of(to_model, self.name)
        value = self.value if is_expression(self.value) else field.get_db_prep_save(self.value, editor.connection)
        fill(editor, to_model, field, value, where=self.where, batch_size=self.batch_size, method=self.method)

    def apply_elsewhere(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        alias = schema_editor.connection.alias
        if self.allow_migrate_model(alias, model):
            rows = model._base_manager.using(alias).filter(self.where or Q(), **{f"{self.name}__isnull": True})
            rows.update(**{self.name: self.value})

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        pass

    def describe(self) -> str:
        return f"Fill field {self.name} on {self.model_name} ({type(self).__name__})"

    @property
    def migration_name_fragment(self) -> str:
        return f"fill_{self.model_name_lower}_{self.name_lower}"

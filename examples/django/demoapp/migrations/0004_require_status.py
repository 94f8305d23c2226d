from django.db import migrations, models

from safe_migrations.operations import SafeSetNotNull


def require_status(model):
    field = models.CharField(max_length=20, db_default="active")
    return SafeSetNotNull(model, "status", field)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("demoapp", "0003_backfill_status_field")]
    operations = [require_status("SmallUser"), require_status("LargeUser")]

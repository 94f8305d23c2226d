from django.db import migrations, models
from django_safe_backfill import SafeAlterField


def require_status(model):
    """Rows that came in without a status since the fill get the default first."""
    return SafeAlterField(model, "status", models.CharField(max_length=20, db_default="active"))


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("demoapp", "0003_backfill_status_field")]
    operations = [require_status("SmallUser"), require_status("LargeUser")]

from django.db import migrations
from django_safe_backfill import SafeBackfill


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("demoapp", "0002_add_status")]
    operations = [
        SafeBackfill("SmallUser", "status", "active"),
        SafeBackfill("LargeUser", "status", "active", batch_size=10000),
    ]

from django.db import migrations, models
from django_safe_backfill import SafeAddField


def add_status(model):
    return SafeAddField(model, "status", models.CharField(max_length=20, null=True, blank=True))


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("demoapp", "0001_initial")]
    operations = [add_status("SmallUser"), add_status("LargeUser")]

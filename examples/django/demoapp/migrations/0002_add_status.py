from django.db import migrations, models

from safe_migrations.operations import AddColumn


def add_status(model):
    field = models.CharField(max_length=20, null=True, blank=True, db_default="active")
    return AddColumn(model, "status", field)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("demoapp", "0001_initial")]
    operations = [add_status("SmallUser"), add_status("LargeUser")]

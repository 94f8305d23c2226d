"""What not to do: all three steps in one transaction.

ADD COLUMN takes a lock that not even a SELECT gets past, and keeps it until the transaction ends: during an UPDATE of
every row, and while SET NOT NULL reads them all again.
"""

from django.db import migrations, models


def fill_status(apps, schema_editor):
    for model in "SmallUser", "LargeUser":
        apps.get_model("demoapp", model).objects.update(status="active")


def nullable_status():
    return models.CharField(max_length=20, null=True, blank=True)


def required_status():
    return models.CharField(max_length=20, db_default="active")


class Migration(migrations.Migration):
    dependencies = [("demoapp", "0001_initial")]
    operations = [
        migrations.AddField("SmallUser", "status", nullable_status()),
        migrations.AddField("LargeUser", "status", nullable_status()),
        migrations.RunPython(fill_status, migrations.RunPython.noop),
        migrations.AlterField("SmallUser", "status", required_status()),
        migrations.AlterField("LargeUser", "status", required_status()),
    ]

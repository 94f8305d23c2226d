from django.contrib.postgres.operations import CreateExtension
from django.db import migrations, models


def user(name, db_table):
    return migrations.CreateModel(
        name=name,
        fields=[
            ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("name", models.CharField(max_length=100)),
        ],
        options={"db_table": db_table, "abstract": False},
    )


class Migration(migrations.Migration):
    initial = True
    dependencies = []

    operations = [CreateExtension("pg_safe_backfill"), user("SmallUser", "small_user"), user("LargeUser", "large_user")]

from django.db import models


class User(models.Model):
    name = models.CharField(max_length=100)
    # A default of the database, not of Django: it also serves the release that is still running while the migrations
    # are, and does not know the column. Without it, that release would go on inserting NULLs behind the backfill.
    status = models.CharField(max_length=20, db_default="active")

    class Meta:
        abstract = True


class SmallUser(User):
    class Meta:
        db_table = "small_user"


class LargeUser(User):
    class Meta:
        db_table = "large_user"

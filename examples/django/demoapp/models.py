from django.db import models


class User(models.Model):
    name = models.CharField(max_length=100)
    # A default of the database, not of Django: it also serves the release that is running while the last migration is,
    # and does not know the column. Without it, its INSERTs would fail from then on.
    status = models.CharField(max_length=20, db_default="active")

    class Meta:
        abstract = True


class SmallUser(User):
    class Meta:
        db_table = "small_user"


class LargeUser(User):
    class Meta:
        db_table = "large_user"

from alembic import op

revision = "3"
down_revision = "2"


def upgrade():
    with op.get_context().autocommit_block():
        # What came in without a value since.
        op.execute("CALL safe_backfill('large_user', 'status', 'active')")
        op.execute("CALL safe_set_not_null('large_user', 'status')")

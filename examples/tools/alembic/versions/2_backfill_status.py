from alembic import op

revision = "2"
down_revision = "1"


def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CALL safe_backfill('large_user', 'status', 'active')")

from alembic import op

revision = "3"
down_revision = "2"


def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CALL safe_set_not_null('large_user', 'status')")

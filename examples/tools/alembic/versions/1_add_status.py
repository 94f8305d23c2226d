from alembic import op

revision = "1"
down_revision = None


def upgrade():
    with op.get_context().autocommit_block():
        op.execute("CALL safe_add_column('large_user', 'status', 'varchar(20)')")
    # For new rows only; in a transaction again.
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.alter_column("large_user", "status", server_default="active")

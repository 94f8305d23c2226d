CALL safe_add_column('large_user', 'status', 'varchar(20)');
SET lock_timeout = '1s';
ALTER TABLE large_user ALTER COLUMN status SET DEFAULT 'active';  -- for new rows only
CALL safe_backfill('large_user', 'status', 'active');
CALL safe_set_not_null('large_user', 'status');

-- no-transaction
CALL safe_backfill('large_user', 'status', 'active');

-- no-transaction
CALL safe_set_not_null('large_user', 'status');

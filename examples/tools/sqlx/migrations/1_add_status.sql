-- no-transaction
CALL safe_add_column('large_user', 'status', 'varchar(20)');

exports.config = { transaction: false };

exports.up = (knex) => knex.raw("CALL safe_add_column('large_user', 'status', 'varchar(20)')");

exports.down = () => {
  throw new Error('There is no way back.');
};

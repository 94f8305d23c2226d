exports.config = { transaction: false };

exports.up = (knex) => knex.raw("CALL safe_set_not_null('large_user', 'status')");

exports.down = () => {
  throw new Error('There is no way back.');
};

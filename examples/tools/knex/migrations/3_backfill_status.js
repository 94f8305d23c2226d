exports.config = { transaction: false };

exports.up = (knex) => knex.raw("CALL safe_backfill('large_user', 'status', 'active')");

exports.down = () => {
  throw new Error('There is no way back.');
};

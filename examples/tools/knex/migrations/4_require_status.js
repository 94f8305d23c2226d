exports.config = { transaction: false };

exports.up = async (knex) => {
  // What came in without a value since.
  await knex.raw("CALL safe_backfill('large_user', 'status', 'active')");
  await knex.raw("CALL safe_set_not_null('large_user', 'status')");
};

exports.down = () => {
  throw new Error('There is no way back.');
};

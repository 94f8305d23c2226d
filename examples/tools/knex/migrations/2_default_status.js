// For new rows only.
exports.up = async (knex) => {
  await knex.raw("SET LOCAL lock_timeout = '1s'");
  await knex.raw("ALTER TABLE large_user ALTER COLUMN status SET DEFAULT 'active'");
};

exports.down = () => {
  throw new Error('There is no way back.');
};

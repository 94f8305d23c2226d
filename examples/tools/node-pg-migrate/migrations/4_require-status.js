export const up = (pgm) => {
  pgm.noTransaction();
  // What came in without a value since.
  pgm.sql("CALL safe_backfill('large_user', 'status', 'active')");
  pgm.sql("CALL safe_set_not_null('large_user', 'status')");
};

export const down = false;

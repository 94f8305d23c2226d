export const up = (pgm) => {
  pgm.noTransaction();
  pgm.sql("CALL safe_backfill('large_user', 'status', 'active')");
};

export const down = false;

// For new rows only.
export const up = (pgm) => {
  pgm.sql("SET LOCAL lock_timeout = '1s'");
  pgm.alterColumn('large_user', 'status', { default: 'active' });
};

export const down = false;

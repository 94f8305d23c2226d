export const up = (pgm) => {
  pgm.noTransaction();
  pgm.sql("CALL safe_set_not_null('large_user', 'status')");
};

export const down = false;

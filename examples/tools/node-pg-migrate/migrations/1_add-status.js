export const up = (pgm) => {
  pgm.noTransaction();
  pgm.sql("CALL safe_add_column('large_user', 'status', 'varchar(20)')");
};

export const down = false;

//! Tables of many shapes, whose cost is foreseen and then measured.

/// What is done to a table before its column is filled.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// What it is called.
    pub title: &'static str,
    /// Creates table `t`, with `$rows` in place of the number of rows.
    pub create: &'static str,
    /// Run one by one after it, outside a transaction block.
    pub then: &'static [&'static str],
    /// The value, as an SQL literal.
    pub value: &'static str,
    /// Somebody keeps a snapshot meanwhile.
    pub snapshot: bool,
}

/// The table's columns are the users' of an application, unless a shape says otherwise.
macro_rules! users {
    ($with:literal) => {
        concat!(
            "CREATE TABLE t (id bigint, name text, email text, token uuid, created_at timestamptz, amount bigint) WITH (",
            $with,
            "); INSERT INTO t SELECT i, 'user ' || i, 'user' || i || '@example.com', gen_random_uuid(),
                timestamptz '2020-01-01' + i * interval '1 second', i % 1000 FROM generate_series(1, $rows) i;"
        )
    };
}

const KEY: &str = "ALTER TABLE t ADD PRIMARY KEY (id)";
const COLUMN: &str = "ALTER TABLE t ADD c varchar(20) DEFAULT NULL";
const VACUUM: &str = "VACUUM ANALYZE t";
const ACTIVE: &str = "'active'";

/// All shapes.
pub const ALL: &[Shape] = &[
    Shape {
        title: "no index",
        create: users!("autovacuum_enabled = off"),
        then: &[COLUMN, VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "one index",
        create: users!("autovacuum_enabled = off"),
        then: &[KEY, COLUMN, VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "four indexes",
        create: users!("autovacuum_enabled = off"),
        then: &[
            KEY,
            "CREATE INDEX ON t (token)",
            "CREATE INDEX ON t (created_at)",
            "CREATE INDEX ON t (lower(email))",
            COLUMN,
            VACUUM,
        ],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "the column indexed",
        create: users!("autovacuum_enabled = off"),
        then: &[KEY, "CREATE INDEX ON t (token)", COLUMN, "CREATE INDEX ON t (c)", VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "an old snapshot",
        create: users!("autovacuum_enabled = off"),
        then: &[KEY, "CREATE INDEX ON t (token)", COLUMN, VACUUM],
        value: ACTIVE,
        snapshot: true,
    },
    Shape {
        title: "narrow rows",
        create: "CREATE TABLE t (id int, n int) WITH (autovacuum_enabled = off);
                 INSERT INTO t SELECT i, i % 100 FROM generate_series(1, $rows) i;",
        then: &[KEY, "CREATE INDEX ON t (n)", "ALTER TABLE t ADD c int", VACUUM],
        value: "7",
        snapshot: false,
    },
    Shape {
        title: "wide rows",
        create: "CREATE TABLE t (id int, filler text) WITH (autovacuum_enabled = off);
                 ALTER TABLE t ALTER filler SET STORAGE plain;
                 INSERT INTO t SELECT i, repeat('x', 900) FROM generate_series(1, $rows / 4) i;",
        then: &[KEY, COLUMN, VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "toasted values",
        create: "CREATE TABLE t (id int, document text) WITH (autovacuum_enabled = off);
                 ALTER TABLE t ALTER document SET STORAGE external;
                 INSERT INTO t SELECT i, repeat(md5(i::text), 80) FROM generate_series(1, $rows / 4) i;",
        then: &[KEY, COLUMN, VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "fillfactor 70",
        create: users!("autovacuum_enabled = off, fillfactor = 70"),
        then: &[KEY, COLUMN, VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "deleted rows, vacuumed",
        create: users!("autovacuum_enabled = off"),
        then: &[KEY, COLUMN, "DELETE FROM t WHERE id % 7 = 0", VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "deleted rows, not vacuumed",
        create: users!("autovacuum_enabled = off"),
        then: &[KEY, COLUMN, "DELETE FROM t WHERE id % 7 = 0"],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "half filled",
        create: "CREATE TABLE t (id int, filler text, c varchar(20)) WITH (autovacuum_enabled = off);
                 INSERT INTO t SELECT i, repeat('x', 70), CASE WHEN i % 2 = 0 THEN 'app' END
                 FROM generate_series(1, $rows) i;",
        then: &[KEY, VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "new rows filled",
        create: users!("autovacuum_enabled = off"),
        then: &[
            KEY,
            "ALTER TABLE t ADD c varchar(20)",
            "INSERT INTO t SELECT id + 10000000, name, email, token, created_at, amount, 'app' FROM t WHERE id % 3 = 0",
            VACUUM,
        ],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "a long value",
        create: users!("autovacuum_enabled = off"),
        then: &[KEY, "ALTER TABLE t ADD c text", VACUUM],
        value: "'a long value: 50 bytes of text, give or take a few'",
        snapshot: false,
    },
    Shape {
        title: "index built by inserts",
        create: "CREATE TABLE t (id uuid PRIMARY KEY, filler text) WITH (autovacuum_enabled = off);
                 INSERT INTO t SELECT gen_random_uuid(), repeat('x', 60) FROM generate_series(1, $rows) i;",
        then: &[COLUMN, VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
    Shape {
        title: "partitioned",
        create: "CREATE TABLE t (id bigint, token uuid, filler text) PARTITION BY RANGE (id);
                 CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO ($rows / 2) WITH (autovacuum_enabled = off);
                 CREATE TABLE t2 PARTITION OF t FOR VALUES FROM ($rows / 2) TO ($rows * 4 / 5) WITH (autovacuum_enabled = off);
                 CREATE TABLE t3 PARTITION OF t DEFAULT WITH (autovacuum_enabled = off);
                 INSERT INTO t SELECT i, gen_random_uuid(), repeat('x', 50) FROM generate_series(1, $rows) i;",
        then: &[KEY, "CREATE INDEX ON t (token)", COLUMN, VACUUM],
        value: ACTIVE,
        snapshot: false,
    },
];

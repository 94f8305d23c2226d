-- Values of every kind of type, and expressions.
SET client_min_messages = warning;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE SCHEMA "Weird ""Schema""";
CREATE TABLE "Weird ""Schema"""."Täble" (
    id int PRIMARY KEY, dropped int, "Näme" text, b boolean, n numeric(6, 2), at timestamptz, tags text[], doc jsonb,
    m mood, p pair, pos positive, raw bytea, u uuid, twice int GENERATED ALWAYS AS (id * 2) STORED);
ALTER TABLE "Weird ""Schema"""."Täble" DROP COLUMN dropped;
INSERT INTO "Weird ""Schema"""."Täble" (id) SELECT generate_series(1, 300);
SET search_path = "Weird ""Schema""", public;
CALL safe_backfill('"Täble"', 'Näme', 'it''s "quoted"');
CALL safe_backfill('"Täble"', 'b', false);
CALL safe_backfill('"Täble"', 'n', 12.345);
CALL safe_backfill('"Täble"', 'at', '2026-01-01 00:00:00+00'::timestamptz);
CALL safe_backfill('"Täble"', 'tags', ARRAY['a', 'b']);
CALL safe_backfill('"Täble"', 'doc', '{"a": [1, 2]}'::jsonb);
CALL safe_backfill('"Täble"', 'm', 'happy');
CALL safe_backfill('"Täble"', 'p', ROW(1, 'x')::pair);
CALL safe_backfill('"Täble"', 'pos', 7);
CALL safe_backfill('"Täble"', 'raw', '\xdeadbeef');
CALL safe_backfill_using('"Täble"', 'u', 'gen_random_uuid()');
SET timezone = 'UTC';
SELECT "Näme", b, n, at, tags, doc, m, p, pos, raw, count(*), count(DISTINCT u)
FROM "Täble" GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10;
-- An expression may look at the row, and leave some NULL; a filter keeps others out.
ALTER TABLE "Täble" ADD COLUMN label text;
CALL safe_backfill_using('"Täble"', 'label', $$CASE WHEN id % 3 = 0 THEN 'third ' || "Täble".twice END -- the rest is left$$);
SELECT count(*), count(label), min(label) FROM "Täble";
CALL safe_backfill('"Täble"', 'label', 'small', filter => 'id <= 10');
CALL safe_backfill('"Täble"', 'label', 'other');
SELECT left(label, 5) AS label, count(*) FROM "Täble" GROUP BY 1 ORDER BY 1;
RESET search_path;
DROP SCHEMA "Weird ""Schema""" CASCADE;
DROP TYPE mood, pair;
DROP DOMAIN positive;

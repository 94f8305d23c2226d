-- Partitioned tables and inheritance trees: every leaf is filled.
SET client_min_messages = warning;
CREATE TABLE event (id int, kind text, seen boolean) PARTITION BY RANGE (id);
CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM (0) TO (100);
CREATE TABLE event_2 PARTITION OF event FOR VALUES FROM (100) TO (200) PARTITION BY LIST (kind);
CREATE TABLE event_2a PARTITION OF event_2 DEFAULT;
CREATE TABLE event_3 (seen boolean, gone int, kind text, id int);
ALTER TABLE event_3 DROP COLUMN gone;
ALTER TABLE event ATTACH PARTITION event_3 FOR VALUES FROM (200) TO (300);
INSERT INTO event SELECT i, 'k' || i % 5 FROM generate_series(0, 299) AS i;
CALL safe_backfill('event', 'seen', false);
SELECT tableoid::regclass, count(*), count(seen) FROM event GROUP BY 1 ORDER BY 1;
SELECT root_table, table_name, state, rows_filled FROM safe_backfill_progress
WHERE root_table = 'event'::regclass ORDER BY table_name;
CALL safe_backfill('event', 'kind', 'x');
DROP TABLE event;
CREATE TABLE animal (name text, tame boolean);
CREATE TABLE dog (breed text) INHERITS (animal);
INSERT INTO animal SELECT 'animal ' || i FROM generate_series(1, 10) AS i;
INSERT INTO dog SELECT 'dog ' || i FROM generate_series(1, 20) AS i;
CALL safe_backfill('animal', 'tame', true);
SELECT tableoid::regclass, count(*), count(tame) FROM animal GROUP BY 1 ORDER BY 1;
DROP TABLE animal CASCADE;

-- The extension can be created by its name alone; the sessions that follow use it.
CREATE EXTENSION pg_safe_backfill;
SELECT extname, extnamespace::regnamespace FROM pg_extension WHERE extname = 'pg_safe_backfill';

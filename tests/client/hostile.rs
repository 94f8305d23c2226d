//! What others made to fit better than PostgreSQL's own operators, functions and types is not used by the extension.

use std::fmt::Write;

use anyhow::{Result, ensure};
use client_tests::Database;
use postgres::Client;

/// Types that expressions of the extension have, or could be converted to; computing with two yields the later one.
const TYPES: [&str; 15] = [
    "bool",
    "int2",
    "int4",
    "int8",
    "numeric",
    "float4",
    "float8",
    "oid",
    "regclass",
    "regrole",
    "name",
    "text",
    "jsonb",
    "timestamptz",
    "interval",
];

/// Operators that SQL uses without showing them, for instance in IN, BETWEEN, LIKE and NULLIF; all of them compare.
const COMPARISONS: [&str; 8] = ["=", "<>", "<", "<=", ">", ">=", "~~", "!~~"];

/// What records that it was called, and by whom.
const RECORD: &str = "
    CREATE TABLE public.ran (what pg_catalog.text, who pg_catalog.name DEFAULT current_user);
    GRANT INSERT ON public.ran TO PUBLIC;
    CREATE FUNCTION public.trap() RETURNS pg_catalog.bool LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.ran VALUES ('a view'); RETURN true; END $$;";

/// All that the extension's objects depend on, apart from each other and what PostgreSQL brings along.
const FOREIGN: &str = "
    WITH RECURSIVE own (classid, objid) AS (
        SELECT classid, objid FROM pg_depend
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
        AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_safe_backfill')
        UNION
        SELECT d.classid, d.objid FROM pg_depend d JOIN own ON d.refclassid = own.classid AND d.refobjid = own.objid
        WHERE d.deptype IN ('a', 'i'))
    SELECT DISTINCT pg_describe_object(own.classid, own.objid, 0) || ' on '
                    || pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
    FROM own
    JOIN pg_depend d ON d.classid = own.classid AND d.objid = own.objid
    CROSS JOIN LATERAL pg_identify_object(d.refclassid, d.refobjid, 0) object
    WHERE NOT EXISTS (SELECT FROM own o WHERE o.classid = d.refclassid AND o.objid = d.refobjid)
    AND d.refclassid NOT IN ('pg_extension'::regclass, 'pg_namespace'::regclass)
    AND object.schema IS DISTINCT FROM 'pg_catalog'";

/// Names of PostgreSQL's own objects that the script of the extension has in it, and more that it could have.
struct Names {
    operators: Vec<String>,
    functions: Vec<String>,
    /// Those of the functions that return a truth value.
    conditions: Vec<String>,
    types: Vec<String>,
    relations: Vec<String>,
}

impl Names {
    fn in_script(db: &Database) -> Result<Self> {
        const SCRIPT: &str = "
            SELECT pg_read_file(c.setting || '/extension/' || e.name || '--' || e.default_version || '.sql')
            FROM pg_config c, pg_available_extensions e WHERE c.name = 'SHAREDIR' AND e.name = 'pg_safe_backfill'";
        let script: String = db.value(SCRIPT)?;
        let mut client = db.connect()?;
        let mut names = |query: &str| -> Result<Vec<String>> {
            let of_script = "= ANY (regexp_split_to_array(lower($1), '\\W+'))";
            let rows = client.query(&query.replace("OF SCRIPT", of_script), &[&script])?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        let mut operators = names(
            "SELECT DISTINCT oprname::text FROM pg_operator WHERE position(oprname::text IN $1) > 0",
        )?;
        operators.extend(COMPARISONS.map(String::from));
        operators.sort_unstable();
        operators.dedup();
        Ok(Names {
            operators,
            functions: names(
                "SELECT DISTINCT proname::text FROM pg_proc
                 WHERE pronamespace = 'pg_catalog'::regnamespace AND proname OF SCRIPT",
            )?,
            conditions: names(
                "SELECT DISTINCT proname::text FROM pg_proc
                 WHERE prorettype = 'bool'::regtype AND proname OF SCRIPT",
            )?,
            types: names(
                "SELECT typname::text FROM pg_type
                 WHERE typnamespace = 'pg_catalog'::regnamespace AND typrelid = 0 AND typname OF SCRIPT",
            )?,
            relations: names(
                "SELECT relname::text FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace
                 AND relkind IN ('r', 'v') AND relname OF SCRIPT",
            )?,
        })
    }

    /// Makes objects of these names in the schema public, for all types that they could be used with.
    fn traps(&self) -> Result<String> {
        let mut sql = RECORD.to_owned();
        for (i, a) in TYPES.iter().enumerate() {
            self.functions_of(&mut sql, &[a])?;
            for (j, b) in TYPES.iter().enumerate() {
                self.functions_of(&mut sql, &[a, b])?;
                self.operators_on(&mut sql, a, b, TYPES[i.max(j)])?;
            }
        }
        self.functions_of(&mut sql, &[])?;
        for name in &self.types {
            write!(sql, "CREATE TYPE public.\"{name}\" AS ENUM ();")?;
            for from in TYPES {
                let cast = format!("as_{name}");
                trap_returning(&mut sql, &cast, &[from], &format!("public.\"{name}\""))?;
                write!(
                    sql,
                    "CREATE CAST (pg_catalog.{from} AS public.\"{name}\")
                     WITH FUNCTION public.\"{cast}\"(pg_catalog.{from}) AS IMPLICIT;"
                )?;
            }
        }
        for name in &self.relations {
            write!(
                sql,
                "CREATE VIEW public.{name} AS SELECT * FROM pg_catalog.{name} WHERE public.trap();
                 GRANT SELECT ON public.{name} TO PUBLIC;"
            )?;
        }
        Ok(sql)
    }

    fn functions_of(&self, sql: &mut String, arguments: &[&str]) -> Result<()> {
        for name in &self.functions {
            let result = match self.conditions.contains(name) {
                true => "bool",
                false => arguments.last().unwrap_or(&"text"),
            };
            trap(sql, name, arguments, result)?;
        }
        Ok(())
    }

    fn operators_on(&self, sql: &mut String, a: &str, b: &str, result: &str) -> Result<()> {
        trap(sql, "compare", &[a, b], "bool")?;
        trap(sql, "compute", &[a, b], result)?;
        for name in &self.operators {
            let function = match COMPARISONS.contains(&name.as_str()) {
                true => "compare",
                false => "compute",
            };
            write!(
                sql,
                "CREATE OPERATOR public.{name} (LEFTARG = pg_catalog.{a}, RIGHTARG = pg_catalog.{b},
                                                FUNCTION = public.{function});"
            )?;
        }
        Ok(())
    }
}

/// A function on PostgreSQL's own types that records that it was called.
fn trap(sql: &mut String, name: &str, arguments: &[&str], result: &str) -> Result<()> {
    trap_returning(sql, name, arguments, &format!("pg_catalog.{result}"))
}

fn trap_returning(sql: &mut String, name: &str, arguments: &[&str], result: &str) -> Result<()> {
    let arguments: Vec<_> = arguments
        .iter()
        .map(|argument| format!("pg_catalog.{argument}"))
        .collect();
    let arguments = arguments.join(", ");
    write!(
        sql,
        "CREATE FUNCTION public.\"{name}\"({arguments}) RETURNS {result} LANGUAGE plpgsql AS
         $$ BEGIN INSERT INTO public.ran VALUES ('{name}({arguments})'); RETURN NULL; END $$;"
    )?;
    Ok(())
}

/// A database of an ordinary role that has set traps in the schema public, before anybody creates the extension.
fn hostile_database() -> Result<Database> {
    let db = Database::new()?;
    let owner = format!("{}_owner", db.name());
    db.execute(&format!(
        "DROP EXTENSION pg_safe_backfill;
         CREATE ROLE {owner} LOGIN; ALTER DATABASE {} OWNER TO {owner}",
        db.name()
    ))?;
    let traps = Names::in_script(&db)?.traps()?;
    db.connect_as(&owner)?.batch_execute(&traps)?;
    Ok(db)
}

/// What has called the traps so far, found out without calling any.
fn ran(db: &Database) -> Result<Vec<String>> {
    texts(db, "SELECT DISTINCT what || ' as ' || who FROM public.ran")
}

fn texts(db: &Database, query: &str) -> Result<Vec<String>> {
    let mut client = db.connect()?;
    client.batch_execute("SET search_path = pg_catalog")?;
    let rows = client.query(query, &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Looks at the job in all ways there are.
fn read(client: &mut Client) -> Result<()> {
    Ok(client.batch_execute(
        "SELECT * FROM public.safe_backfill_progress; SELECT state, value FROM public.safe_backfill_job;
         SELECT * FROM public.safe_backfill_part; SELECT * FROM public.safe_backfill_step",
    )?)
}

#[test]
fn objects_made_before_the_extension_are_not_used_by_it() -> Result<()> {
    let db = hostile_database()?;
    let mut superuser = db.connect()?;
    superuser.batch_execute("CREATE EXTENSION pg_safe_backfill")?;
    let foreign = texts(&db, FOREIGN)?;
    ensure!(foreign.is_empty(), "the extension depends on: {foreign:#?}");
    superuser.batch_execute(
        "CREATE TABLE public.t (id int, c int);
         INSERT INTO public.t SELECT i, NULL FROM pg_catalog.generate_series(1, 1000) i;
         GRANT SELECT ON public.t TO PUBLIC",
    )?;
    for call in [
        "CALL public.safe_add_column('public.t', 'd', 'text')",
        "CALL public.safe_backfill('public.t', 'c', 7)",
        "CALL public.safe_backfill_using('public.t', 'd', 'id', 10, 'true')",
        "CALL public.safe_set_not_null('public.t', 'c')",
    ] {
        superuser.batch_execute(call)?;
    }
    // Finished, and stopped half-way.
    read(&mut superuser)?;
    superuser.batch_execute(
        "UPDATE public.safe_backfill_part SET state = 'filling', next_block = 1, end_block = 3",
    )?;
    read(&mut superuser)?;
    let other = format!("{}_other", db.name());
    superuser.batch_execute(&format!("CREATE ROLE {other} LOGIN"))?;
    read(&mut db.connect_as(&other)?)?;
    let called = ran(&db)?;
    ensure!(called.is_empty(), "these ran: {called:#?}");
    // The traps do work: this is what the extension has to avoid.
    superuser.batch_execute("SELECT 1 * 1.5::float8")?;
    let multiplied = "compute(pg_catalog.int4, pg_catalog.float8) as postgres";
    assert_eq!(ran(&db)?, [multiplied]);
    Ok(())
}

/// A CHECK remembers its operators. Those for arrays and enums are PostgreSQL's for any array and any enum, so that one
/// for a certain type fits better.
#[test]
fn checks_are_tried_with_the_operators_they_were_made_with() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE public.t (id int, c int[]);
         ALTER TABLE public.t ADD CHECK (c <> '{}'), ADD CHECK (c IS DISTINCT FROM '{}'),
                              ADD CHECK (nullif(c, '{}') <> '{2}');
         INSERT INTO public.t VALUES (1, NULL)",
    )?;
    let other = format!("{}_other", db.name());
    db.execute(&format!(
        "CREATE ROLE {other} LOGIN; GRANT CREATE ON SCHEMA public TO {other}"
    ))?;
    let mut traps = RECORD.to_owned();
    trap(&mut traps, "compare", &["_int4", "_int4"], "bool")?;
    for operator in ["=", "<>"] {
        write!(
            traps,
            "CREATE OPERATOR public.{operator} (LEFTARG = int[], RIGHTARG = int[], FUNCTION = public.compare);"
        )?;
    }
    db.connect_as(&other)?.batch_execute(&traps)?;
    db.call("CALL public.safe_backfill('public.t', 'c', '{1}'::int[])")?
        .succeeded()?;
    let called = ran(&db)?;
    ensure!(called.is_empty(), "these ran: {called:#?}");
    Ok(())
}

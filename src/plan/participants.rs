//! What takes part when rows are updated, and what makes the column NULL again.

use crate::catalog::tree;
use crate::error::Error;
use crate::fill::target::Target;
use crate::messages::amounts::agreeing;
use crate::pg::spi::quote;
use crate::pg::tx::Tx;
use crate::plan::finding::{Finding, Verdict};

/// A question to the catalogs about the tables of the tree (`$1`) and the column (`$2`), answered by names.
struct Participant {
    topic: &'static str,
    /// What there is none of, otherwise.
    plural: &'static str,
    names: &'static str,
    verdict: Verdict,
    /// What the names are of.
    finding: &'static str,
    advice: Option<&'static str>,
}

/// Triggers that an UPDATE of the column would fire.
macro_rules! fired {
    ($condition:literal) => {
        concat!(
            "SELECT format('%I', t.tgname) FROM pg_trigger t
             WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal AND t.tgtype & 16 = 16
             AND t.tgenabled IN ('A', CASE current_setting('session_replication_role')
                                      WHEN 'replica' THEN 'R' ELSE 'O' END)
             AND (cardinality(t.tgattr::int2[]) = 0
                  OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.tgrelid
                             AND a.attnum = ANY (t.tgattr::int2[])
                             AND (a.attname = $2::name OR a.attgenerated <> ''))) AND ",
            $condition
        )
    };
}

/// Publications that would send the updates.
macro_rules! published {
    ($condition:literal) => {
        concat!(
            "SELECT format('%I', p.pubname) FROM pg_publication p
             WHERE p.pubupdate AND EXISTS (
                 SELECT FROM pg_publication_tables s JOIN pg_namespace n ON n.nspname = s.schemaname
                 JOIN pg_class c ON c.relname = s.tablename AND c.relnamespace = n.oid
                 WHERE s.pubname = p.pubname
                 AND c.oid IN (SELECT unnest($1) UNION SELECT relid FROM unnest($1) AS o, pg_partition_ancestors(o))
                 AND $2::name IS NOT NULL AND ",
            $condition,
            ")"
        )
    };
}

const PARTICIPANTS: &[Participant] = &[
    Participant {
        topic: "triggers",
        plural: "triggers",
        names: fired!("t.tgtype & 3 = 3"),
        verdict: Verdict::Warning,
        finding: "fire before each row, and could change other columns too, such as the time of the last change, or set this one back to NULL",
        advice: Some(
            "See what they do; rows that are NULL still are counted and reported, not tried for ever.",
        ),
    },
    Participant {
        topic: "triggers",
        plural: "triggers",
        names: fired!("t.tgtype & 3 <> 3"),
        verdict: Verdict::Note,
        finding: "fire after each row, or for each statement of up to 1000 rows",
        advice: None,
    },
    Participant {
        topic: "foreign keys",
        plural: "foreign keys",
        names: "SELECT format('%I', c.conname) FROM pg_constraint c
            JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attname = $2::name
            WHERE c.contype = 'f' AND c.conrelid = ANY ($1) AND a.attnum = ANY (c.conkey)",
        verdict: Verdict::Note,
        finding: "are checked for each row that is filled, locking the rows referred to",
        advice: None,
    },
    Participant {
        topic: "foreign keys",
        plural: "foreign keys",
        names: "SELECT format('%I', c.conname) FROM pg_constraint c
            JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attname = $2::name
            WHERE c.contype = 'f' AND c.confrelid = ANY ($1) AND a.attnum = ANY (c.confkey)",
        verdict: Verdict::Note,
        finding: "refer to the column",
        advice: None,
    },
    Participant {
        topic: "checks",
        plural: "checks",
        names: "SELECT format('%I', c.conname) FROM pg_constraint c
            WHERE c.contype = 'c' AND c.conrelid = ANY ($1) AND NOT c.convalidated AND $2::name IS NOT NULL",
        verdict: Verdict::Warning,
        finding: "are NOT VALID: a row that violates one could not be updated, and would end the backfill",
        advice: Some("Validate them first, or leave such rows out by a filter."),
    },
    Participant {
        topic: "checks",
        plural: "checks",
        names: "SELECT format('%I', c.conname) FROM pg_constraint c
            JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attname = $2::name
            WHERE c.contype = 'c' AND c.conrelid = ANY ($1) AND a.attnum = ANY (c.conkey)",
        verdict: Verdict::Note,
        finding: "must allow the value",
        advice: None,
    },
    Participant {
        topic: "generated columns",
        plural: "generated columns",
        names: "SELECT format('%I', g.attname) FROM pg_attribute g
            JOIN pg_attrdef f ON f.adrelid = g.attrelid AND f.adnum = g.attnum
            JOIN pg_attribute a ON a.attrelid = g.attrelid AND a.attname = $2::name
            JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
                 AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
            WHERE g.attrelid = ANY ($1) AND g.attgenerated <> ''",
        verdict: Verdict::Note,
        finding: "are computed from the column",
        advice: None,
    },
    Participant {
        topic: "rules",
        plural: "rules",
        names: "SELECT format('%I', r.rulename) FROM pg_rewrite r
            WHERE r.ev_class = ANY ($1) AND r.ev_type IN ('2', '3') AND $2::name IS NOT NULL",
        verdict: Verdict::Note,
        finding: "exist, without effect on a backfill",
        advice: None,
    },
    Participant {
        topic: "publications",
        plural: "publications",
        names: published!(
            // As `RelationGetIndexList` chooses the index.
            "c.relreplident <> 'f' AND NOT EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
                AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))"
        ),
        verdict: Verdict::Blocker,
        finding: "publish updates of a table that has no replica identity: PostgreSQL refuses to update it",
        advice: Some("Give the table a primary key, or run ALTER TABLE ... REPLICA IDENTITY."),
    },
    Participant {
        topic: "publications",
        plural: "publications",
        names: published!("true"),
        verdict: Verdict::Note,
        finding: "send each row that is filled to subscribers",
        advice: Some("Make sure that the subscribers have the column, and watch how far behind they are."),
    },
    Participant {
        topic: "policies",
        plural: "policies",
        names: "SELECT format('%I', p.polname) FROM pg_policy p
            WHERE p.polrelid = ANY ($1) AND $2::name IS NOT NULL",
        verdict: Verdict::Ok,
        finding: "exist, without hiding rows from the current user",
        advice: None,
    },
];

/// So many are named.
const MOST_NAMED: usize = 5;

/// Each that takes part, those that do not, and what sets the column to NULL again.
///
/// # Errors
/// None so far.
pub fn find(tx: &Tx, target: &Target) -> Result<Vec<Finding>, Error> {
    let tables = tree::oids(tx, target.table);
    let mut findings = vec![new_rows(target)];
    let mut absent: Vec<&str> = vec![];
    for participant in PARTICIPANTS {
        let rows = tx.catalog(
            &format!(
                "SELECT DISTINCT name COLLATE \"C\" FROM ({}) AS found (name) ORDER BY 1",
                participant.names
            ),
            &[&tables, &target.column.as_str()],
        );
        let names: Vec<String> = rows.iter().filter_map(|row| row.get(1)).collect();
        match names.is_empty() {
            true => absent.push(participant.plural),
            false => findings.push(participant.finding(&names)),
        }
    }
    let present = |name: &str| {
        PARTICIPANTS.iter().any(|participant| {
            participant.plural == name
                && findings
                    .iter()
                    .any(|finding| finding.topic == participant.topic)
        })
    };
    absent.retain(|name| !present(name));
    absent.dedup();
    if let Some((last, others)) = absent.split_last() {
        let names = match others.is_empty() {
            true => (*last).to_owned(),
            false => format!("{} or {last}", others.join(", ")),
        };
        findings.push(Finding::ok("others", format!("no {names} take part")));
    }
    Ok(findings)
}

impl Participant {
    fn finding(&self, names: &[String]) -> Finding {
        let more = names.len().saturating_sub(MOST_NAMED);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = names[..names.len().min(MOST_NAMED)].join(", ");
        Finding {
            topic: self.topic,
            verdict: self.verdict,
            finding: format!("{named}{more} {}", agreeing(names.len(), self.finding)),
            advice: self.advice.map(Into::into),
        }
    }
}

/// What new rows get that do not give the column a value.
fn new_rows(target: &Target) -> Finding {
    const TOPIC: &str = "new rows";
    let column = &target.column;
    match target.has_default {
        true => Finding::ok(TOPIC, format!("column \"{column}\" has a default")),
        false => Finding::of(
            Verdict::Warning,
            TOPIC,
            format!(
                "column \"{column}\" has no default: it is NULL in new rows that do not give it a value"
            ),
            format!(
                "Set one first, which does not touch any row: SET lock_timeout = '1s'; ALTER TABLE {} ALTER COLUMN {} SET DEFAULT ...;",
                target.quoted(),
                quote(column)
            ),
        ),
    }
}

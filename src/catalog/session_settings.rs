//! The settings of this session that decide how SQL is read, and what a run does.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::pg::settings;
use crate::pg::tx::Tx;

// Runs under the session's own search path, which is one of the settings; so all names have their schema.
const SETTINGS: &str = "
    SELECT pg_catalog.jsonb_object_agg(name, setting)::pg_catalog.text FROM pg_catalog.pg_settings
    WHERE source OPERATOR(pg_catalog.=) ANY ('{client,session}'::pg_catalog.text[])
    AND context OPERATOR(pg_catalog.=) ANY ('{user,superuser}'::pg_catalog.text[])
    AND name OPERATOR(pg_catalog.!~)
        '^(log_|transaction_|default_transaction_|debug_)|^(?!safe_backfill\\.).*_timeout$'::pg_catalog.text
    AND name OPERATOR(pg_catalog.<>) ALL ('{application_name,client_encoding,client_min_messages,is_superuser,role,
                                           seed,session_authorization}'::pg_catalog.text[])
    AND ($1 OR name OPERATOR(pg_catalog.!~) '^safe_backfill\\.'::pg_catalog.text)";

/// Those that another process needs to read the same SQL in the same way, as JSON. Those that control the run are not
/// among them: the other process has them from its role and database, and they can be changed during the run.
///
/// # Errors
/// [`Error::StoredJob`].
pub fn of_sql(tx: &Tx) -> Result<String, Error> {
    read(tx, false)
}

/// Those that a helper of this process needs, as JSON. They include those that control the run, so that both have the
/// same.
///
/// # Errors
/// [`Error::StoredJob`].
pub fn of_helpers(tx: &Tx) -> Result<String, Error> {
    read(tx, true)
}

fn read(tx: &Tx, steering: bool) -> Result<String, Error> {
    let rows = tx.execute(SETTINGS, &[&steering]);
    let defined: Option<String> = rows.first().and_then(|row| row.get(1));
    let mut settings = settings::placeholders(tx);
    settings.extend(parse(&defined.unwrap_or_default())?);
    let settings: BTreeMap<String, String> = settings.into_iter().collect();
    Ok(serde_json::to_string(&settings)?)
}

/// What is stored as JSON.
///
/// # Errors
/// [`Error::StoredJob`].
pub fn parse(text: &str) -> Result<Vec<(String, String)>, Error> {
    if text.is_empty() {
        return Ok(vec![]);
    }
    let settings: BTreeMap<String, String> = serde_json::from_str(text)?;
    Ok(settings.into_iter().collect())
}

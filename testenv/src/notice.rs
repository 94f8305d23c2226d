use std::fmt;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use postgres::error::DbError;

/// A message the server sent besides results: a NOTICE, a WARNING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// `NOTICE`, `WARNING`, `INFO` …
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// The DETAIL line.
    pub detail: Option<String>,
    /// The HINT line.
    pub hint: Option<String>,
}

impl From<DbError> for Notice {
    fn from(error: DbError) -> Self {
        Self {
            severity: error.severity().into(),
            code: error.code().code().into(),
            message: error.message().into(),
            detail: error.detail().map(Into::into),
            hint: error.hint().map(Into::into),
        }
    }
}

/// As psql shows it.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:  {}", self.severity, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, "\nDETAIL:  {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nHINT:  {hint}")?;
        }
        Ok(())
    }
}

/// The notices of one connection, in the order they came; they can be read while another thread runs a statement.
#[derive(Debug)]
pub struct Notices(pub(crate) Receiver<Notice>);

impl Notices {
    /// All that have come since the last call, without waiting.
    #[must_use]
    pub fn take(&self) -> Vec<Notice> {
        self.0.try_iter().collect()
    }

    /// The next one, if it comes within `timeout`.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Option<Notice> {
        self.0.recv_timeout(timeout).ok()
    }
}

//! One row of a plan.

/// What a finding means for the backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// Something should be done about it first.
    Warning,
    /// The backfill would be refused, or fail.
    Blocker,
}

impl Verdict {
    /// As SQL shows it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Warning => "warning",
            Verdict::Blocker => "blocker",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, in a word or two.
    pub topic: &'static str,
    /// What it means.
    pub verdict: Verdict,
    /// What was found.
    pub finding: String,
    /// What to do about it, in full sentences, if anything.
    pub advice: Option<String>,
}

impl Finding {
    /// With advice.
    pub fn of(
        verdict: Verdict,
        topic: &'static str,
        finding: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Finding {
            topic,
            verdict,
            finding: finding.into(),
            advice: Some(advice.into()),
        }
    }

    /// Nothing to do.
    pub fn ok(topic: &'static str, finding: impl Into<String>) -> Self {
        Self::without_advice(Verdict::Ok, topic, finding)
    }

    /// Good to know.
    pub fn note(topic: &'static str, finding: impl Into<String>) -> Self {
        Self::without_advice(Verdict::Note, topic, finding)
    }

    fn without_advice(verdict: Verdict, topic: &'static str, finding: impl Into<String>) -> Self {
        Finding {
            topic,
            verdict,
            finding: finding.into(),
            advice: None,
        }
    }
}

//! Numbers, times and sizes, written for a person.

use std::time::Duration;

use planner::sampling::Estimate;

/// A number with its noun, in the singular or plural: `1 row`, `2 batches`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = match count {
        1 => "",
        _ if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{count} {noun}{plural}")
}

/// What is said of one thing or several; it begins with a verb in the plural.
pub fn agreeing(count: usize, said: &str) -> String {
    let (verb, rest) = said.split_once(' ').unwrap_or((said, ""));
    let verb = match (count, verb) {
        (1, "are") => "is".into(),
        (1, verb) if verb.ends_with("sh") => format!("{verb}es"),
        (1, verb) if verb != "must" => format!("{verb}s"),
        _ => verb.to_owned(),
    };
    format!("{verb} {rest}")
}

/// A time, in the two largest units that it has.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    match whole {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A number of rows that is an estimate, with how far it may be from the truth.
pub fn approximately(estimate: Estimate) -> String {
    let rows = estimate.rows.round() as u64;
    match estimate.bound.round() as u64 {
        0 => counted(rows, "row"),
        bound => format!("about {} ± {bound}", counted(rows, "row")),
    }
}

/// A size in bytes, to three digits.
pub fn size(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut size = bytes.max(0.0);
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = match size {
        _ if unit == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{size:.digits$} {}", UNITS[unit])
}

/// By how much a size in bytes has changed.
pub fn growth(before: i64, after: i64) -> String {
    if before == 0 {
        return format!("{after:+} bytes");
    }
    format!("{:+.1}%", 100.0 * (after - before) as f64 / before as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_agree_with_how_many_there_are() {
        assert_eq!(agreeing(1, "fire after each row"), "fires after each row");
        assert_eq!(agreeing(1, "are NOT VALID"), "is NOT VALID");
        assert_eq!(agreeing(1, "publish updates"), "publishes updates");
        assert_eq!(agreeing(1, "must allow the value"), "must allow the value");
        assert_eq!(agreeing(2, "fire after each row"), "fire after each row");
    }

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(seconds(Duration::from_secs(75)), "1 min 15 s");
        assert_eq!(seconds(Duration::from_secs(7322)), "2 h 2 min");
        assert_eq!(size(0.0), "0 bytes");
        assert_eq!(size(8192.0), "8.00 kB");
        assert_eq!(size(14.3 * 1024.0 * 1024.0), "14.3 MB");
        assert_eq!(size(1023.0 * 1024.0), "1.00 MB");
        let estimate = |rows, bound| approximately(Estimate { rows, bound });
        assert_eq!(estimate(1.0, 0.0), "1 row");
        assert_eq!(estimate(1000.4, 9.6), "about 1000 rows ± 10");
        assert_eq!(growth(200, 226), "+13.0%");
        assert_eq!(growth(0, 8192), "+8192 bytes");
    }
}

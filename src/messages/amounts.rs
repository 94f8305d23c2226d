//! Numbers, times and sizes, written for a person.

use std::time::Duration;

/// A number with its noun, in the singular or plural: `1 row`, `2 batches`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = match count {
        1 => "",
        _ if noun.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{count} {noun}{plural}")
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
    fn times_and_sizes_read_well() {
        assert_eq!(seconds(Duration::from_secs(75)), "1 min 15 s");
        assert_eq!(seconds(Duration::from_secs(7322)), "2 h 2 min");
        assert_eq!(growth(200, 226), "+13.0%");
        assert_eq!(growth(0, 8192), "+8192 bytes");
    }
}

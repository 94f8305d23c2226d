//! Results as people read them.

use std::fmt::Write;

/// A Markdown table whose columns line up; all but the first are numbers.
#[must_use]
pub fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<_> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([title.chars().count(), 4]).max().unwrap_or(0)
        })
        .collect();
    let rule = widths.iter().enumerate().map(|(column, width)| {
        if column == 0 {
            "-".repeat(*width)
        } else {
            "-".repeat(width - 1) + ":"
        }
    });
    let header = header.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for cells in [&header, &rule.collect()].into_iter().chain(rows) {
        for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            // Writing to a string can't fail.
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
    }
    text
}

/// The middle of some values.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// A whole number with thousands separated.
#[must_use]
pub fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in megabytes, as `pg_size_pretty` counts them.
#[must_use]
pub fn megabytes(bytes: f64) -> String {
    format!("{} MB", count(bytes / 1024.0 / 1024.0))
}

/// Growth in percent.
#[must_use]
pub fn growth(percent: f64) -> String {
    format!("{percent:+.0} %")
}

/// A share in percent.
#[must_use]
pub fn share(percent: f64) -> String {
    format!("{percent:.0} %")
}

/// Milliseconds.
#[must_use]
pub fn milliseconds(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1} ms")
    } else {
        format!("{} ms", count(value))
    }
}

/// Seconds.
#[must_use]
pub fn seconds(value: f64) -> String {
    format!("{value:.2} s")
}

/// How many times as much as a base.
#[must_use]
pub fn ratio(value: f64, base: Option<f64>) -> String {
    base.map_or_else(|| "-".into(), |base| format!("{:.2}", value / base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = markdown(&["way", "time"], &[vec!["one UPDATE".into(), "1 s".into()]]);
        assert_eq!(
            text,
            "| way        | time |\n| ---------- | ---: |\n| one UPDATE |  1 s |\n"
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(1234567.2), "1,234,567");
        assert_eq!(count(999.0), "999");
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(growth(-0.4), "-0 %");
        assert_eq!(ratio(1.0, Some(4.0)), "0.25");
    }
}

//! Every figure of the README and of the benchmarks comes from an output that is kept in `docs/figures`, below the command that printed it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::documentation::{blocks, root};

/// What makes a number a figure.
const UNITS: [&str; 13] = [
    "ms", "s", "%", "kB", "MB", "GB", "TB", "rows/s", "times", "x", "×", "minutes", "hours",
];
/// Numbers with a unit that nobody measured.
const GIVEN: [(&str, &str); 7] = [
    (env!("CARGO_PKG_VERSION"), "the version"),
    ("1 TB", "the size that docs/operating.md reckons with"),
    ("8 %", "8 bytes for 'active', on a row of about 100"),
    ("1 GB", "shared_buffers of make bench"),
    ("8 GB", "max_wal_size of make bench"),
    ("16 MB", "a window, in planner/src/window.rs"),
    (
        "10 ms",
        "the longest wait for a lock within a batch, in src/fill/sweep.rs",
    ),
];
/// What the README says in words of all runs in which HOT updates are possible: a column of `make bench`, and between
/// which parts of what one UPDATE takes.
const IN_WORDS: [(&str, &str, f64, f64); 3] = [
    ("**faster than one plain UPDATE**", "time", 0.0, 1.0),
    (
        "a tenth to a fifth of the heap's growth",
        "heap growth",
        0.1,
        0.2,
    ),
    ("half to two thirds of the WAL", "WAL", 0.5, 0.667),
];

/// The output of a command.
struct Kept {
    file: PathBuf,
    command: String,
    lines: Vec<String>,
}

fn kept() -> Result<Vec<Kept>> {
    let mut all = vec![];
    for entry in fs::read_dir(root().join("docs/figures"))? {
        let file = entry?.path();
        let text = fs::read_to_string(&file)?;
        let mut lines = text.lines().map(str::to_owned);
        let first = lines.next().unwrap_or_default();
        let command = first
            .strip_prefix("$ ")
            .with_context(|| format!("{}: the first line is no command", file.display()))?;
        let lines: Vec<_> = lines.collect();
        ensure!(!lines.is_empty(), "{}: no output", file.display());
        all.push(Kept {
            command: command.to_owned(),
            file,
            lines,
        });
    }
    Ok(all)
}

fn readme() -> Result<String> {
    Ok(fs::read_to_string(root().join("README.md"))?)
}

/// The numbers of a line with their units; those without one only if `bare`, or if they are a ratio such as 0.85.
fn figures(line: &str, bare: bool) -> Vec<String> {
    let mut figures = vec![];
    let mut rest = line;
    let mut before = ' ';
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        before = rest[..start].chars().next_back().unwrap_or(before);
        let tail = &rest[start..];
        let length = tail
            .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')
            .unwrap_or(tail.len());
        let number = tail[..length].trim_end_matches(['.', ',']);
        rest = &tail[number.len()..];
        // Part of a name, such as p99 or varchar2.
        if before.is_alphanumeric() || before == '_' {
            continue;
        }
        before = '0';
        let sign = if rest_sign(line, tail) { "+" } else { "" };
        let after = rest.trim_start_matches([' ', '\u{a0}']);
        let word: String = after
            .chars()
            .take_while(|c| c.is_alphabetic() || "/%×".contains(*c))
            .collect();
        match UNITS.iter().find(|unit| **unit == word) {
            Some(unit) => figures.push(format!("{sign}{number} {unit}")),
            None if bare || number.contains('.') => figures.push(format!("{sign}{number}")),
            None => {}
        }
    }
    figures
}

/// Whether a plus stands before the number at which `tail` of `line` begins.
fn rest_sign(line: &str, tail: &str) -> bool {
    line[..line.len() - tail.len()].ends_with('+')
}

/// A document without its blocks of code, without what is `code` within a line, and without the targets of links.
fn prose(text: &str) -> Vec<String> {
    let without_blocks = text.split("```").step_by(2).collect::<String>();
    let spans = without_blocks.split('`').enumerate();
    let without_code: String = spans
        .map(|(number, part)| match number % 2 {
            0 => part.to_owned(),
            _ => "\n".repeat(part.matches('\n').count()),
        })
        .collect();
    let mut parts = without_code.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once(')').map_or(part, |(_, rest)| rest));
    let plain = first + &rest.collect::<String>();
    plain.lines().map(str::to_owned).collect()
}

/// Whether all of these are on one line of a kept output.
fn backed(kept: &[Kept], wanted: &[String]) -> bool {
    let mut lines = kept.iter().flat_map(|kept| &kept.lines);
    lines.any(|line| {
        let there = figures(line, true);
        wanted.iter().all(|figure| there.contains(figure))
    })
}

#[test]
fn every_figure_comes_from_a_kept_output() -> Result<()> {
    let kept = kept()?;
    let mut unbacked = vec![];
    let mut measurements = false;
    let text = readme()? + &fs::read_to_string(root().join("docs/benchmarks.md"))?;
    for line in prose(&text) {
        let is_rule = line.starts_with('|') && line.chars().all(|c| "|-: ".contains(c));
        if is_rule {
            // Numbers are set to the right.
            measurements = line.contains("-:");
        } else if measurements && line.starts_with('|') {
            let cells = line.splitn(3, '|').nth(2).unwrap_or_default();
            let row = figures(cells, true);
            if !backed(&kept, &row) {
                unbacked.push(format!("{row:?} together, of {line}"));
            }
        } else {
            measurements = false;
            for figure in figures(&line, false) {
                let given = GIVEN.iter().any(|(given, _)| *given == figure);
                if !given && !backed(&kept, std::slice::from_ref(&figure)) {
                    unbacked.push(format!("{figure}, of {line}"));
                }
            }
        }
    }
    ensure!(
        unbacked.is_empty(),
        "no output in docs/figures has\n{}",
        unbacked.join("\n")
    );
    Ok(())
}

#[test]
fn what_the_readme_shows_of_a_run_is_what_the_run_printed() -> Result<()> {
    let kept = kept()?;
    let text = readme()?;
    let shown: Vec<_> = blocks(&text)
        .filter(|(language, _)| language.is_empty())
        .collect();
    ensure!(!shown.is_empty(), "README.md shows no output");
    for (_, block) in shown {
        let block: Vec<_> = block.lines().collect();
        ensure!(
            kept.iter()
                .any(|kept| kept.lines.windows(block.len()).any(|lines| lines == block)),
            "no output in docs/figures has\n{}",
            block.join("\n")
        );
    }
    Ok(())
}

/// The number in the column `title` of the row of `way`, in a table that `make bench` printed.
fn cell(lines: &[String], way: &str, title: &str) -> Result<f64> {
    let cells = |line: &str| -> Vec<String> {
        let cells = line.split('|').map(str::trim);
        cells.map(str::to_owned).collect()
    };
    let row = |name: &str| {
        let rows = lines.iter().map(|line| cells(line));
        rows.into_iter()
            .find(|cells| cells.get(1).is_some_and(|first| first == name))
            .with_context(|| format!("no row {name:?}"))
    };
    let column = row("strategy")?.iter().position(|cell| cell == title);
    let text = row(way)?[column.with_context(|| format!("no column {title:?}"))?].clone();
    let number: String = text
        .chars()
        .filter(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    Ok(number.parse()?)
}

#[test]
fn what_the_readme_says_in_words_is_what_make_bench_printed() -> Result<()> {
    let text = readme()?.replace('\n', " ");
    let kept = kept()?;
    let comparisons: Vec<_> = kept
        .iter()
        .filter(|kept| kept.command.starts_with("make bench") && !kept.command.contains("--live"))
        .filter(|kept| !kept.command.contains("--index-column"))
        .filter(|kept| cell(&kept.lines, "one UPDATE", "time").is_ok())
        .collect();
    ensure!(comparisons.len() >= 2, "{} comparisons", comparisons.len());
    for (words, title, least, most) in IN_WORDS {
        ensure!(text.contains(words), "README.md does not say {words:?}");
        for Kept { file, lines, .. } in &comparisons {
            let update = cell(lines, "one UPDATE", title)?;
            let part = cell(lines, "safe_backfill", title)? / update;
            if part < least - 0.05 || part > (most + 0.05).min(most.max(1.0)) {
                bail!("{}: {title}: {part:.2}, not {words:?}", file.display());
            }
        }
    }
    Ok(())
}

#[test]
fn figures_are_recognised() {
    assert_eq!(
        figures(
            "in 3.60 s, +108 % of 1,000 rows, p99 8,322 ms (0.85)",
            false
        ),
        ["3.60 s", "+108 %", "8,322 ms", "0.85"]
    );
    assert_eq!(
        figures(" **0.33** | 0 | +0 % |", true),
        ["0.33", "0", "+0 %"]
    );
    assert_eq!(
        prose("a `25ms` b 3 s\n```\n4 s\n```\n[x](http://5.6) 7 s"),
        ["a  b 3 s", "", "[x 7 s"]
    );
}

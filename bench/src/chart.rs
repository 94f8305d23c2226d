//! One picture of several migrations: how long the application waited while each of them went on.

use std::path::Path;
use std::sync::Once;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::report::{milliseconds, seconds};

/// About as large as a web page shows it, so that the text is as large as that of the page.
const SIZE: (u32, u32) = (860, 440);
const FONT: &str = "sans-serif";
/// Of these sizes plotters makes less in the SVG: 17 becomes 13.7 pixels.
const TITLE_SIZE: i32 = 20;
const TEXT_SIZE: i32 = 17;
/// How the marks of each migration look: they are told apart without colours, too. The labels name them, since a mark beside
/// a label would look like one more request.
const LOOKS: [(RGBColor, Shape); 3] = [
    (RGBColor(198, 40, 40), Shape::Circle),
    (RGBColor(46, 125, 50), Shape::Triangle),
    (RGBColor(21, 101, 192), Shape::Cross),
];
/// Milliseconds at the lower end. Below the marks there is room for a label.
const SHORTEST: f64 = 0.05;
/// A label is so many times as high as the marks that it belongs to, and as the next label.
const ABOVE: f64 = 2.5;

#[derive(Debug, Clone, Copy)]
enum Shape {
    Circle,
    Triangle,
    Cross,
}

/// What there is to be seen of one migration; times in seconds from its start.
#[derive(Debug, Clone, Default)]
pub struct Story {
    /// What it is called.
    pub name: String,
    /// When it ended.
    pub elapsed: f64,
    /// Milliseconds that the application's slowest requests took, by when they were sent.
    pub latency: Vec<(f64, f64)>,
}

/// Draws at most three migrations on the same axes, as `NAME.svg` and `NAME.png` in `directory`. The slowest of them comes
/// first and the fastest last.
///
/// # Errors
/// Those of writing the files.
pub fn draw(directory: &Path, name: &str, title: &str, stories: &[Story]) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    register();
    let svg = directory.join(format!("{name}.svg"));
    picture(
        &SVGBackend::new(&svg, SIZE).into_drawing_area(),
        title,
        stories,
    )?;
    let png = directory.join(format!("{name}.png"));
    picture(
        &BitMapBackend::new(&png, SIZE).into_drawing_area(),
        title,
        stories,
    )
}

/// A font of the picture's own, so that it looks the same on a machine that has none.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails only for bytes that are no font.
        let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
}

/// Marks and not lines: lines between extremes would hide them.
fn picture<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    stories: &[Story],
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let fail = |error: DrawingAreaErrorKind<B::ErrorType>| anyhow!("could not draw: {error}");
    area.fill(&WHITE).map_err(fail)?;
    let start = stories.iter().map(Story::begins).fold(0.0, f64::min);
    let end = stories.iter().map(Story::ends).fold(1.0, f64::max);
    let longest = stories.iter().map(Story::slowest).fold(10.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, TITLE_SIZE))
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(76)
        .build_cartesian_2d(start..end, (SHORTEST..longest * 2.0 * ABOVE).log_scale())
        .map_err(fail)?;
    chart
        .configure_mesh()
        .x_desc("when a request was sent, in seconds from the beginning of the migration")
        .label_style((FONT, TEXT_SIZE))
        .axis_desc_style((FONT, TEXT_SIZE))
        .light_line_style(WHITE)
        .x_labels(10)
        .y_labels(7)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|&value| duration(value))
        .draw()
        .map_err(fail)?;
    for (story, (color, shape)) in stories.iter().zip(LOOKS) {
        let marks = story.latency.iter().map(|&point| shape.at(point, color));
        chart.draw_series(marks).map_err(fail)?;
    }
    let step = (end - start) / 50.0;
    let heights = label_heights(stories);
    for ((story, (color, shape)), height) in stories.iter().zip(LOOKS).zip(heights) {
        let style = TextStyle::from((FONT, TEXT_SIZE).into_font())
            .color(&color)
            .pos(Pos::new(HPos::Left, VPos::Center));
        let label = format!("{} ({}): {}", story.name, shape.name(), story.outcome());
        let text = Text::new(label, (start + step, height), style);
        chart.draw_series([text]).map_err(fail)?;
    }
    area.present().map_err(fail)
}

/// Above the marks of each, but for the last, whose label is below all of them.
fn label_heights(stories: &[Story]) -> Vec<f64> {
    let mut heights: Vec<f64> = vec![];
    for (number, story) in stories.iter().enumerate() {
        let most = heights.last().map_or(f64::MAX, |last| last / ABOVE);
        let is_last = number > 0 && number + 1 == stories.len();
        heights.push(match is_last {
            true => (4.0 * SHORTEST).min(most),
            false => (story.slowest() * ABOVE).min(most),
        });
    }
    heights
}

fn duration(milliseconds: f64) -> String {
    match milliseconds >= 1000.0 {
        true => format!("{} s", milliseconds / 1000.0),
        false => format!("{milliseconds} ms"),
    }
}

impl Story {
    fn begins(&self) -> f64 {
        self.latency.first().map_or(0.0, |first| first.0)
    }

    fn ends(&self) -> f64 {
        self.latency
            .last()
            .map_or(self.elapsed, |last| last.0.max(self.elapsed))
    }

    /// Milliseconds that the slowest request took which was sent during the migration.
    fn slowest(&self) -> f64 {
        let during = self
            .latency
            .iter()
            .filter(|(at, _)| (0.0..=self.elapsed).contains(at));
        during.map(|&(_, latency)| latency).fold(0.0, f64::max)
    }

    fn outcome(&self) -> String {
        let slowest = match self.slowest() {
            long if long >= 1000.0 => seconds(long / 1000.0),
            short => milliseconds(short),
        };
        format!(
            "done after {}, slowest request {slowest}",
            seconds(self.elapsed)
        )
    }
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Circle => "circles",
            Shape::Triangle => "triangles",
            Shape::Cross => "crosses",
        }
    }

    fn at<B: DrawingBackend, C: 'static + Clone>(
        self,
        point: C,
        color: RGBColor,
    ) -> DynElement<'static, B, C> {
        match self {
            Shape::Circle => Circle::new(point, 2, color.filled()).into_dyn(),
            Shape::Triangle => TriangleMarker::new(point, 3, color.filled()).into_dyn(),
            Shape::Cross => Cross::new(point, 3, color.stroke_width(1)).into_dyn(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: f64 = 1.24;

    /// A migration during which requests took `slowest` milliseconds, falling to an end after `elapsed` seconds.
    fn story(name: &str, elapsed: f64, slowest: f64) -> Story {
        let before = (-30..0).map(|tenth| (f64::from(tenth) / 10.0, 3.0));
        let during = (0..(elapsed * 10.0) as i32).map(|tenth| {
            let at = f64::from(tenth) / 10.0;
            (at, (slowest * (1.0 - at / elapsed)).max(1.0))
        });
        Story {
            name: name.into(),
            elapsed,
            latency: before.chain(during).collect(),
        }
    }

    /// The boxes of all texts, from the left, the top, to the right and the bottom.
    fn boxes(svg: &str) -> Vec<(String, [f64; 4])> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let texts = document
            .descendants()
            .filter(|node| node.has_tag_name("text"));
        texts
            .map(|node| {
                let text = node.text().unwrap_or_default().trim().to_owned();
                let number = |name| -> f64 { node.attribute(name).unwrap().parse().unwrap() };
                let size = number("font-size");
                let font = (FONT, size * POINT).into_font();
                let (width, _) = font.box_size(&text).unwrap();
                // `ex` is about half of `em`.
                let dy = match node.attribute("dy").unwrap() {
                    "0.76em" => 0.76,
                    "0.5ex" => 0.25,
                    "-0.5ex" => -0.25,
                    other => panic!("{other}"),
                };
                let (x, baseline) = (number("x"), number("y") + dy * size);
                let width = f64::from(width);
                let left = match node.attribute("text-anchor") {
                    Some("end") => x - width,
                    Some("middle") => x - width / 2.0,
                    _ => x,
                };
                (text, [left, baseline - size, left + width, baseline])
            })
            .collect()
    }

    #[test]
    fn texts_stay_apart_and_on_the_canvas() {
        register();
        let cases = [
            (18.92, 18_224.0, 9.74, 8.2, 0.4, 6.0),
            (2.7, 2_600.0, 4.4, 410.0, 0.19, 80.0),
            (196.0, 196_000.0, 73.0, 35.0, 0.2, 5.0),
            (0.5, 90.0, 0.7, 80.0, 0.1, 70.0),
        ];
        for (risky, risky_slowest, safe, safe_slowest, instant, instant_slowest) in cases {
            let stories = [
                story("risky way", risky, risky_slowest),
                story("safe way", safe, safe_slowest),
                story("instant way", instant, instant_slowest),
            ];
            let mut svg = String::new();
            let title = "The slowest of 400 requests per second, while a column of 10,000,000 rows is filled";
            picture(
                &SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(),
                title,
                &stories,
            )
            .unwrap();
            let boxes = boxes(&svg);
            assert!(boxes.len() > 10, "{boxes:?}");
            for (number, (text, [left, top, right, bottom])) in boxes.iter().enumerate() {
                let (width, height) = (f64::from(SIZE.0), f64::from(SIZE.1));
                assert!(
                    *left >= 0.0 && *top >= 0.0 && *right <= width && *bottom <= height,
                    "{text} leaves the canvas: {left} {top} {right} {bottom}"
                );
                for (other, [l, t, r, b]) in &boxes[..number] {
                    let apart = left >= r || right <= l || top >= b || bottom <= t;
                    assert!(apart, "{text} overlaps {other}");
                }
            }
        }
    }
}

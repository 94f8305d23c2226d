//! One picture of several migrations: how long the application waited, who waited for locks, how large the table grew.

use std::ops::Range;
use std::path::Path;
use std::sync::Once;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

const SIZE: (u32, u32) = (960, 820);
const FONT: &str = "sans-serif";
/// How the dots of each migration look: they are told apart without colours, too.
const LOOKS: [(RGBColor, Shape); 3] = [
    (RGBColor(198, 40, 40), Shape::Circle),
    (RGBColor(46, 125, 50), Shape::Triangle),
    (RGBColor(21, 101, 192), Shape::Cross),
];
const SHORTEST: f64 = 0.1;

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
    /// Milliseconds that the application's slowest transactions took.
    pub latency: Vec<(f64, f64)>,
    /// Sessions that waited for a lock.
    pub waiting: Vec<(f64, f64)>,
    /// Megabytes of the table and its indexes.
    pub size: Vec<(f64, f64)>,
}

/// Draws at most three migrations on the same axes, as `NAME.svg` and `NAME.png` in `directory`.
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
    let area = area.titled(title, (FONT, 18)).map_err(fail)?;
    let panels = area.split_by_breakpoints(Vec::<i32>::new(), vec![360, 540]);
    let begins = stories
        .iter()
        .filter_map(|story| Some(story.latency.first()?.0));
    let start = begins.fold(0.0, f64::min);
    let ends = stories.iter().map(|story| story.elapsed);
    let end = ends.fold(0.0, f64::max) + 2.0;

    let longest = highest(stories, |story| &story.latency).max(10.0) * 3.0;
    let latency = (SHORTEST..longest).log_scale();
    let most = highest(stories, |story| &story.waiting).max(1.0) * 1.15;
    let largest = highest(stories, |story| &story.size) * 1.15;
    let panel = |number: usize| Panel {
        area: &panels[number],
        time: start..end,
        stories,
    };
    panel(0).draw("slowest request, ms", latency, |story| &story.latency)?;
    panel(1).draw("sessions in a lock queue", 0.0..most, |story| {
        &story.waiting
    })?;
    panel(2).draw("table + indexes, MB", 0.0..largest, |story| &story.size)?;
    area.present().map_err(fail)
}

type Points = Vec<(f64, f64)>;

impl Shape {
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

fn highest(stories: &[Story], points: fn(&Story) -> &Points) -> f64 {
    stories
        .iter()
        .flat_map(points)
        .map(|&(_, value)| value)
        .fold(0.0, f64::max)
}

/// One diagram over time, with dots of its own colour for each migration: lines between extremes would hide them.
struct Panel<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    time: Range<f64>,
    stories: &'a [Story],
}

impl<B: DrawingBackend> Panel<'_, B>
where
    B::ErrorType: 'static,
{
    fn draw<Y>(&self, what: &str, values: Y, points: fn(&Story) -> &Points) -> Result<()>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let fail = |error: DrawingAreaErrorKind<B::ErrorType>| anyhow!("could not draw: {error}");
        let mut chart = ChartBuilder::on(self.area)
            .margin_right(24)
            .margin_top(8)
            .x_label_area_size(38)
            .y_label_area_size(84)
            .build_cartesian_2d::<_, Y>(RangedCoordf64::from(self.time.clone()), values)
            .map_err(fail)?;
        chart
            .configure_mesh()
            .x_desc("seconds since the migration began")
            .y_desc(what)
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 13))
            .light_line_style(WHITE)
            .x_labels(12)
            .y_labels(6)
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&|value| format!("{value}"))
            .draw()
            .map_err(fail)?;
        for (story, (color, shape)) in self.stories.iter().zip(LOOKS) {
            let label = format!("{}: done after {:.1} s", story.name, story.elapsed);
            let dots = points(story).iter().map(|&point| shape.at(point, color));
            chart
                .draw_series(dots)
                .map_err(fail)?
                .label(label)
                .legend(move |(x, y)| shape.at((x + 9, y), color));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .label_font((FONT, 13))
            .draw()
            .map_err(fail)
    }
}

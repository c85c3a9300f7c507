//! Draws the learning curves: train and test error over the epochs, mean over the seeds.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::path::Path;

use plotters::element::DashedPathElement;
use plotters::prelude::*;

use crate::report::{count, diverged, mean};
use crate::train::{Plan, Point, Results, Run};

// All in pixels.
pub(crate) const SIZE: (u32, u32) = (960, 520);
pub(crate) const LEGEND_WIDTH: u32 = 205;
pub(crate) const LEGEND_TOP: i32 = 60;
pub(crate) const LEGEND_STEP: i32 = 26;
pub(crate) const DASH: u32 = 7;
pub(crate) const GAP: u32 = 4;

/// One colour a setting, told apart also by readers who see few colours (Okabe and Ito).
pub(crate) const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// Where the picture goes when no file is named: cargo's folder, which is made if it is missing.
const DEFAULT: &str = "target/train_digits.svg";

/// The file that the picture goes to.
pub(crate) struct Picture<'a> {
    path: &'a Path,
}

impl<'a> Picture<'a> {
    /// A picture in [`DEFAULT`].
    pub(crate) fn create_default() -> Result<Self, String> {
        let picture = Self { path: Path::new(DEFAULT) };
        if let Some(folder) = picture.folder() {
            fs::create_dir_all(folder).map_err(|error| picture.failed(&error))?;
        }
        Self::create(picture.path)
    }

    /// Makes sure that the file can be written. What it has in it stays until there is a picture.
    pub(crate) fn create(path: &'a Path) -> Result<Self, String> {
        let picture = Self { path };
        if let Some(folder) = picture.folder().filter(|folder| !folder.exists()) {
            return Err(format!(
                "--output {}: there is no folder {}",
                path.display(),
                folder.display()
            ));
        }
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| picture.failed(&error))?;
        Ok(picture)
    }

    /// The file.
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// The folder of the file, unless that is the current one.
    fn folder(&self) -> Option<&'a Path> {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty())
    }

    /// Draws the learning curves into the file.
    pub(crate) fn draw(&self, plan: &Plan, results: &Results) -> Result<(), String> {
        let mut svg = String::new();
        render(&mut svg, plan, results).map_err(|error| self.failed(&*error))?;
        self.save(&svg)
    }

    /// Writes a picture that is drawn into the file.
    pub(crate) fn save(&self, svg: &str) -> Result<(), String> {
        fs::write(self.path, svg).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &dyn Error) -> String {
        format!("{}: cannot be written: {error}", self.path.display())
    }
}

fn render(svg: &mut String, plan: &Plan, results: &Results) -> Result<(), Box<dyn Error>> {
    let curves: Vec<_> = results
        .iter()
        .map(|runs| (curve(runs, |p| p.train.error_rate()), curve(runs, |p| p.test.error_rate())))
        .collect();
    let top = curves
        .iter()
        .flat_map(|(train, test)| train.iter().chain(test))
        .fold(1.0, |top: f64, &(_, error)| top.max(error));

    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    // The legend stands beside the chart: inside, some curve would pass behind it.
    let (left, right) = root.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let mut title = format!("Train and test error, mean over {}", count(plan.seeds, "seed"));
    match results.iter().flatten().filter(|run| diverged(run)).count() {
        0 => {}
        runs => title += &format!("; {} diverged", count(runs as u32, "network")),
    }
    let mut chart = ChartBuilder::on(&left)
        .caption(title, ("sans-serif", 22))
        .margin(15)
        // For the last label, which is centred on the end of the axis.
        .margin_right(25)
        .x_label_area_size(45)
        .y_label_area_size(55)
        // A little room below 0 keeps a curve that reaches it off the axis.
        .build_cartesian_2d(0..plan.epochs, -0.02 * top..1.05 * top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("epoch")
        .y_desc("error, percent")
        // Rounded, because ticks are sums of steps; + 0.0 turns -0 into 0.
        .y_label_formatter(&|error| format!("{}", (error * 100.0).round() / 100.0 + 0.0))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .draw()?;

    let mut y = LEGEND_TOP;
    for (index, (setting, (train, test))) in plan.settings.iter().zip(curves).enumerate() {
        let color = COLORS[index % COLORS.len()];
        let (thick, thin) = (color.stroke_width(3), color.stroke_width(2));
        // A single point makes no line.
        let points = test.iter().chain(&train).filter(|_| test.len() == 1);
        chart.draw_series(points.map(|&point| Circle::new(point, 5, color.filled())))?;
        chart.draw_series(LineSeries::new(test, thick))?;
        chart.draw_series(DashedLineSeries::new(train, DASH, GAP, thin))?;

        let text = |what| format!("{what}, {}", setting.name);
        right.draw(&PathElement::new(sample_line(y), thick))?;
        right.draw(&label(text("test"), y))?;
        y += LEGEND_STEP;
        right.draw(&DashedPathElement::new(sample_line(y), DASH, GAP, thin))?;
        right.draw(&label(text("train"), y))?;
        y += LEGEND_STEP;
    }
    root.present()?;
    Ok(())
}

/// The ends of the line that a legend shows beside a label at height `y`.
pub(crate) fn sample_line(y: i32) -> [(i32, i32); 2] {
    [(0, y + 7), (30, y + 7)]
}

/// A label of a legend at height `y`.
pub(crate) fn label<'a>(text: impl Into<String>, y: i32) -> Text<'a, (i32, i32), String> {
    Text::new(text.into(), (38, y), ("sans-serif", 16))
}

/// A quantity in percent at each epoch where it was measured, mean over the runs.
fn curve(runs: &[Run], quantity: impl Fn(&Point) -> f64) -> Vec<(u32, f64)> {
    (0..runs[0].len())
        .map(|index| {
            let values: Vec<f64> = runs.iter().map(|run| 100.0 * quantity(&run[index])).collect();
            (runs[0][index].epoch, mean(&values))
        })
        .collect()
}

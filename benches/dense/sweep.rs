//! How the share of the peak follows one size while the others stay.

use std::cell::RefCell;

use fused_dropout::Level;
use plotters::prelude::*;

use super::peers::{Peer, peers};
use super::{Case, LAYERS, ours, theirs};
use crate::support::{Options, Table, peak, value_of};

/// Few of something: up to where panels are worth packing, and a few beyond.
const FEW: [usize; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64];

/// A sweep: its name, the sizes it goes through, and (m, k, n) for each of them.
type Sweep = (&'static str, &'static [usize], fn(usize) -> (usize, usize, usize));

/// The first is the one that the picture shows.
const SWEEPS: [Sweep; 5] = [
    ("rows", &FEW, |m| (m, 1024, 1024)),
    ("units", &FEW, |n| (128, 1024, n)),
    ("k", &[8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096], |k| (128, k, 256)),
    ("width", &[64, 80, 96, 100, 128, 160, 192, 200, 224, 256], |n| (64, n, n)),
    ("batch", &[1, 8, 32, 64, 100, 128, 256, 512], |m| (m, 784, 1024)),
];

/// Of a sweep with `--quick`.
const QUICK: [usize; 3] = [1, 8, 64];

/// The bare product, and one with ReLU and dropout 0.5.
const OURS: usize = 2;

/// A line of the picture: its name, and shares of the peak against the size.
type Line = (String, Vec<(f64, f64)>);

/// A table for each sweep.
pub(super) fn table(options: &Options, threads: usize) {
    let peers = peers(threads);
    // All of them, or the one that is named after the flag.
    let one = value_of("--sweep").filter(|only| SWEEPS.iter().any(|(name, ..)| name == only));
    for (name, sizes, shape) in SWEEPS {
        if one.as_ref().is_some_and(|one| one != name) {
            continue;
        }
        let quick = |size: &&usize| !options.quick || QUICK.contains(size);
        let sizes: Vec<_> = sizes.iter().filter(quick).copied().collect();
        let lines = sweep(options, (name, threads), &peers, &sizes, shape);
        let path = value_of("--picture").filter(|_| name == SWEEPS[0].0);
        // One picture: of one thread, unless only others were asked for.
        if let Some(path) = path.filter(|_| threads == options.threads[0]) {
            draw(&path, threads, &lines).expect("the picture can be written");
        }
    }
}

/// Measures a sweep and prints it; returns the lines of its picture, all at the best level.
fn sweep(
    options: &Options,
    (name, threads): (&str, usize),
    peers: &[Peer],
    sizes: &[usize],
    shape: fn(usize) -> (usize, usize, usize),
) -> Vec<Line> {
    let levels = options.fast_levels();
    let best = peak::yardstick(Level::best());
    let mut names: Vec<_> = levels
        .iter()
        .flat_map(|level| LAYERS[..OURS].iter().map(move |(name, ..)| format!("{name}, {level}")))
        .collect();
    names.extend(peers.iter().map(|peer| peer.name.to_owned()));
    let header = [name, "m x k x n"].map(str::to_owned).into_iter().chain(names.iter().cloned());
    let mut table = Table::new(header.chain(["best peer / bare".to_owned()]));
    let drawn = ["ours, bare", "ours, ReLU, dropout 0.5"].into_iter();
    let names = drawn.chain(peers.iter().map(|peer| peer.name));
    let mut lines: Vec<Line> = names.map(|name| (name.to_owned(), Vec::new())).collect();
    for &size in sizes {
        let case = &Case::new(shape(size));
        case.check(&levels, peers);
        let y = &RefCell::new(vec![0.0; case.shape.0 * case.shape.2]);
        let mut candidates = Vec::new();
        for &level in &levels {
            candidates.extend(ours(case, y, level, &LAYERS[..OURS]));
        }
        candidates.extend(theirs(case, y, best, peers));
        let times = options.measure(&format!("sweep/{name}/{}", case.name()), candidates);
        // What runs at each level has the level's peak before it; the peers have that of the best one.
        let peaks = (0..=levels.len()).map(|l| l * (1 + OURS));
        let yardsticks = levels.iter().map(|level| peak::yardstick(*level)).chain([best]);
        let mut shares = Vec::new();
        for (peak_at, yardstick) in peaks.zip(yardsticks) {
            let count = if peak_at < levels.len() * (1 + OURS) { OURS } else { peers.len() };
            shares.extend((peak_at + 1..=peak_at + count).map(|i| {
                100.0 * peak::share(yardstick, case.work(), times.min(i) / times.min(peak_at))
            }));
        }
        let mut row = vec![size.to_string(), case.name()];
        row.extend(shares.iter().map(|share| format!("{share:.1}%")));
        let first_peer = (1 + OURS) * levels.len() + 1;
        let bare = first_peer - 1 - OURS;
        let ratio = times.best_ratio(first_peer..first_peer + peers.len(), bare);
        row.push(format!("{ratio:.2}"));
        table.row(row);
        let of_best = shares.split_off(OURS * (levels.len() - 1));
        for ((_, line), share) in lines.iter_mut().zip(of_best) {
            line.push((size as f64, share));
        }
    }
    table.print(&format!(
        "dense layer, forward, by {name}, {threads} thread(s): shares of the peak of level and threads (of \
         {best} for the peers), from the smallest times; last column: median ratio"
    ));
    lines
}

/// Draws shares of the peak against the rows.
fn draw(path: &str, threads: usize, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (900, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(680);
    let level = Level::best();
    let title = match threads {
        1 => format!("Rows x 1024 x 1024, {level}, one thread"),
        _ => format!("Rows x 1024 x 1024, {level}, {threads} threads"),
    };
    let most =
        lines.iter().flat_map(|(_, line)| line).fold(1.0, |most: f64, (at, _)| most.max(*at));
    let mut chart = ChartBuilder::on(&left)
        .caption(title, ("sans-serif", 22))
        .margin(15)
        .x_label_area_size(45)
        .y_label_area_size(55)
        .build_cartesian_2d(0.0..most, 0.0..100.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(9)
        .x_label_formatter(&|rows| format!("{rows:.0}"))
        .y_label_formatter(&|share| format!("{share:.0} %"))
        .x_desc("rows")
        .y_desc("share of the peak of multiply-adds")
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .draw()?;
    // Told apart also by readers who see few colours (Okabe and Ito).
    let colors = [
        RGBColor(0, 114, 178),
        RGBColor(213, 94, 0),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(90, 90, 90),
    ];
    let mut y = 60;
    for ((name, line), color) in lines.iter().zip(colors.iter().cycle()) {
        let style = color.stroke_width(3);
        chart.draw_series(LineSeries::new(line.iter().copied(), style))?;
        right.draw(&PathElement::new([(0, y + 7), (30, y + 7)], style))?;
        right.draw(&Text::new(name.clone(), (38, y), ("sans-serif", 16)))?;
        y += 26;
    }
    root.present()?;
    Ok(())
}

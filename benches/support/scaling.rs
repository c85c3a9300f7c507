//! One thread against two: both take turns in one run, so that their ratio is free of drift.

use fused_dropout::{Level, testing};
use rayon::ThreadPool;

use super::{Candidate, Options, Table, peak, pool};

/// A table with a line for each job: times or speeds on one and on two threads, and their ratio.
pub(crate) struct Scaling<'a> {
    options: &'a Options,
    pools: [ThreadPool; 2],
    table: Table,
}

impl<'a> Scaling<'a> {
    pub(crate) fn new(options: &'a Options) -> Self {
        let header = [
            "",
            "level",
            "1 thread, GFLOP/s",
            "of peak",
            "2 threads, GFLOP/s",
            "of peak",
            "speed-up",
            "the peak's",
        ];
        Self { options, pools: [1, 2].map(pool), table: Table::new(header) }
    }

    /// Measures a job of `work` floating-point operations, and beside it the peak.
    pub(crate) fn row(&mut self, name: String, level: Level, work: f64, run: impl Fn() + Sync) {
        let yardstick = peak::yardstick(level);
        let run = || testing::at_level(level, &run).expect("an available level");
        // Peak and job on one thread, then on two.
        let candidates = self.pools.iter().flat_map(|pool| {
            let peak = Candidate::on(pool, || peak::run(yardstick)).named("peak").of(level);
            [peak.baseline(), Candidate::on(pool, run).named("run").of(level)]
        });
        let times = self.options.measure(&format!("scaling/{name}"), candidates.collect());
        let mut row = vec![name, level.to_string()];
        for (pool, i) in self.pools.iter().zip([1, 3]) {
            let share = pool.install(|| peak::share(yardstick, work, times.ratio(i, i - 1)));
            row.push(format!("{:.1}", work / times.min(i) / 1e9));
            row.push(format!("{:.1}%", 100.0 * share));
        }
        row.push(format!("{:.2}", times.ratio(1, 3)));
        // Both loops do the same work on each thread.
        row.push(format!("{:.2}", 2.0 * times.ratio(0, 2)));
        self.table.row(row);
    }

    pub(crate) fn print(&self, what: &str) {
        self.table.print(&format!(
            "{what}, one thread and two in one run: speeds from the smallest times, median shares of \
             the peak on as many threads, median speed-ups"
        ));
    }
}

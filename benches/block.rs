//! Block dropout: the time of a training step against the step without dropout, and of a layer by how
//! its units are dealt to blocks.
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench block
//!     -- --table [--quick] [--level avx2] [--threads 1]
//! ```
//!
//! Mini-batches of 128, hidden layers with dropout of blocks, inputs with dropout of elements at rate
//! 0.2. Every time is compared with that of the same network's step at rate 0, in the same round. The
//! ideal is the kept share of the products' operations: of the first layer a half at rate 0.5, of the
//! next a quarter.

mod support;

use criterion::{BenchmarkId, Criterion};
use fused_dropout::layer::{
    BlockDeal, BlockShape, DenseArgs, DenseLayer, DenseUpdate, KeptBlocks, Parameters,
    dense_forward, dense_update,
};
use fused_dropout::nn::{Granularity, Mlp, MlpSpec, Optimiser};
use fused_dropout::update::{AdamStep, SgdStep};
use fused_dropout::{Activation, Dropout, Level, MaskKey, MaskSource, MatMut, Saved, testing};
use support::{Candidate, Options, Table, matrix};

const BATCH: usize = 128;
const NETWORKS: [[usize; 4]; 2] = [[784, 1024, 1024, 10], [784, 2048, 2048, 10]];
const DEFAULT: Granularity = Granularity::BLOCK;
const SMALL: Granularity = Granularity::Block { rows: 16, units: 16 };
const LARGE: Granularity = Granularity::Block { rows: 32, units: 32 };

/// Hidden rate, granularity and name of each step; the first is what all are compared with.
const STEPS: [(f64, Granularity, &str); 6] = [
    (0.0, Granularity::Element, "no dropout"),
    (0.5, Granularity::Element, "elements, 0.5"),
    (0.5, DEFAULT, "16 x 32, 0.5"),
    (0.5, SMALL, "16 x 16, 0.5"),
    (0.5, LARGE, "32 x 32, 0.5"),
    (0.25, DEFAULT, "16 x 32, 0.25"),
];

fn main() {
    support::main(table, groups);
}

/// A network and a mini-batch.
struct Step {
    mlp: Mlp,
    optimiser: Optimiser,
    x: Vec<f32>,
    labels: Vec<u32>,
}

impl Step {
    fn new(sizes: &[usize], hidden_rate: f64, granularity: Granularity, adam: bool) -> Self {
        let spec = MlpSpec::new(sizes)
            .with_input_rate(if hidden_rate > 0.0 { 0.2 } else { 0.0 })
            .with_hidden_rate(hidden_rate)
            .with_granularity(granularity)
            .with_seed(7);
        let optimiser = match adam {
            true => Optimiser::new(AdamStep::new(0.001).with_weight_decay(0.01)),
            false => Optimiser::new(SgdStep::new(0.01).with_momentum(0.9)),
        };
        let x = support::uniform(BATCH * sizes[0], 1);
        let labels = (0..BATCH as u32).map(|i| i * 7 % 10).collect();
        Self { mlp: Mlp::new(&spec).expect("a valid network"), optimiser, x, labels }
    }

    fn run(&mut self) -> f32 {
        let x = matrix(&self.x, BATCH, self.x.len() / BATCH);
        self.mlp.train_step(x, &self.labels, &self.optimiser).expect("shapes that agree")
    }

    fn candidate(mut self, level: Level) -> Candidate<'static> {
        Candidate::at(level, move || {
            self.run();
        })
        .warm()
    }
}

/// All levels with fused multiply-add have the same losses, bit for bit.
fn check(levels: &[Level]) {
    let losses = |level: &Level| {
        let mut step = Step::new(&NETWORKS[0], 0.5, SMALL, false);
        let losses = testing::at_level(*level, || [(); 3].map(|()| step.run()));
        losses.expect("an available level").map(f32::to_bits)
    };
    let all: Vec<_> = levels.iter().filter(|level| level.has_fma()).map(losses).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "levels disagree");
}

fn table(options: &Options, threads: usize) {
    check(&options.levels);
    let header = ["network", "optimiser", "level", "dropout", "us a step", "/ none", "/ elements"];
    let mut table = Table::new(header);
    for sizes in NETWORKS {
        for (adam, optimiser) in [(false, "momentum"), (true, "AdamW")] {
            for level in options.fast_levels() {
                let candidate = |(rate, granularity, name): (f64, Granularity, &str)| {
                    Step::new(&sizes, rate, granularity, adam).candidate(level).named(name)
                };
                let group = format!("step/{sizes:?}/{optimiser}");
                let times = options.measure(&group, STEPS.map(candidate).into());
                for (i, (.., name)) in STEPS.into_iter().enumerate() {
                    table.row(vec![
                        sizes.map(|n| n.to_string()).join("-"),
                        optimiser.into(),
                        level.to_string(),
                        name.into(),
                        format!("{:.0}", times.min(i) * 1e6),
                        format!("{:.3}", times.ratio(i, 0)),
                        format!("{:.3}", times.ratio(i, 1)),
                    ]);
                }
            }
        }
    }
    table.print(&format!(
        "training step with block dropout, batch {BATCH}, {threads} thread(s): smallest times, \
         median ratios to the step without dropout and to that with dropout of elements"
    ));
    deals(options, threads);
}

/// A layer between two of blocks: the blocks of a step, forward, backward and update.
fn layer_step(n: usize, deal: Option<BlockDeal>) -> impl FnMut() {
    let shape = BlockShape::new(16, 32).expect("a shape").with_deal(deal.unwrap_or_default());
    let half = |layer, step| {
        let key = MaskKey::new(7, layer, step).expect("an address");
        Dropout::new(0.5).expect("a rate").with_key(key)
    };
    let kept = |layer| KeptBlocks::draw((BATCH, n), shape, &half(layer, 0)).expect("a batch");
    let (mut input, mut output) = (kept(0), kept(1));
    let (x, mut w) = (support::uniform(BATCH * n, 1), support::uniform(n * n, 2));
    let (mut velocity, dy) = (vec![0.0; n * n], support::uniform(BATCH * n, 3));
    let (mut y, mut dx) = (vec![0.0; BATCH * n], vec![0.0; BATCH * n]);
    let (mut step, sgd) = (0, SgdStep::new(1e-4).with_momentum(0.9));
    move || {
        let mut layer = DenseLayer::new(Activation::Relu);
        if deal.is_some() {
            step += 1;
            input.redraw(BATCH, &half(0, step)).expect("a batch");
            output.redraw(BATCH, &half(1, step)).expect("a batch");
            layer = layer.with_input(&input).with_output(&output);
        }
        let x = matrix(&x, BATCH, n);
        let args = DenseArgs::new(layer, x, matrix(&w, n, n));
        let to = MatMut::new(&mut y, BATCH, n).expect("a matrix");
        dense_forward(&args, to, None, MaskSource::Key).expect("shapes that agree");
        let saved = Saved::Output(matrix(&y, BATCH, n));
        let update = DenseUpdate::new(layer, x, sgd);
        let parameters = Parameters::new(MatMut::new(&mut w, n, n).expect("a matrix"))
            .with_w_state(MatMut::new(&mut velocity, n, n).expect("a matrix"));
        let dx = MatMut::new(&mut dx, BATCH, n).expect("a matrix");
        let dy = matrix(&dy, BATCH, n);
        dense_update(&update, parameters, &saved, dy, Some(dx), MaskSource::Key)
            .expect("shapes that agree");
    }
}

/// What it costs to deal units anew.
fn deals(options: &Options, threads: usize) {
    let mut table = Table::new(["layer", "level", "blocks", "us a step", "/ fixed"]);
    let rows = [
        (Some(BlockDeal::Fixed), "fixed"),
        (Some(BlockDeal::Shifted), "shifted"),
        (Some(BlockDeal::Permuted), "permuted"),
        (None, "none"),
    ];
    for n in [1024, 2048] {
        for level in options.fast_levels() {
            let candidates = rows
                .map(|(deal, name)| Candidate::at(level, layer_step(n, deal)).warm().named(name));
            let times = options.measure(&format!("deal/{n}"), candidates.into());
            for (i, (_, name)) in rows.into_iter().enumerate() {
                table.row(vec![
                    format!("{BATCH} x {n} x {n}"),
                    level.to_string(),
                    name.into(),
                    format!("{:.0}", times.min(i) * 1e6),
                    format!("{:.3}", times.ratio(i, 0)),
                ]);
            }
        }
    }
    table.print(&format!(
        "forward, backward and update of a layer with blocks of 16 x 32 at rate 0.5, {threads} \
         thread(s), by how units are dealt: smallest times, median ratios to fixed blocks"
    ));
}

fn groups(criterion: &mut Criterion, options: &Options, threads: usize) {
    let mut group = criterion.benchmark_group(format!("block/{threads}t"));
    check(&options.levels);
    for sizes in NETWORKS {
        for level in options.fast_levels() {
            for (rate, granularity, name) in STEPS {
                let mut step = Step::new(&sizes, rate, granularity, false);
                let network = sizes.map(|n| n.to_string()).join("-");
                let id = BenchmarkId::new(format!("{network}, {name}"), level);
                group.bench_function(id, |b| {
                    testing::at_level(level, || b.iter(|| step.run())).expect("an available level");
                });
            }
        }
    }
    group.finish();
}

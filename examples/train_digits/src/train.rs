//! Trains every setting with every seed. This is the part that uses the library.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use fused_dropout::nn::{LearningRateSchedule, Mlp, MlpSpec, Optimiser};
use fused_dropout::softmax::Loss;
use fused_dropout::update::SgdStep;
use fused_dropout::{Error, MatRef, Scaling};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rayon::ThreadPoolBuilder;

use crate::checkpoint::Checkpoints;
use crate::data::{CLASSES, Data, Examples, Split};
use crate::options::Options;
use crate::progress::Progress;

const MOMENTUM: f32 = 0.9;

/// Points of a learning curve: enough to look smooth, few enough to cost little.
const CURVE_POINTS: u32 = 50;

/// A network beyond this many weights is a slip of the keyboard, not an example.
const MAX_WEIGHTS: u64 = 100_000_000;

/// One of the things that are compared. The first setting is what the others are compared with.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) spec: MlpSpec,
    /// The numbers of the first step.
    pub(crate) step: SgdStep,
    /// The largest norm of a unit's incoming weights.
    pub(crate) max_norm: Option<f32>,
    /// Steps until the learning rate is 0.
    pub(crate) steps: u32,
}

impl Setting {
    /// How the network is trained.
    fn optimiser(&self) -> Optimiser {
        let mut optimiser = Optimiser::new(self.step)
            .with_schedule(LearningRateSchedule::Linear { steps: self.steps });
        optimiser.max_norm = self.max_norm;
        optimiser
    }
}

/// Everything that is decided before training.
pub(crate) struct Plan {
    pub(crate) settings: Vec<Setting>,
    /// Name of the activation of the hidden layers.
    pub(crate) activation: String,
    pub(crate) first_seed: u64,
    pub(crate) seeds: u32,
    pub(crate) epochs: u32,
    pub(crate) batch: usize,
    /// Points of a learning curve.
    pub(crate) points: u32,
    /// Whether a part of the training examples takes the place of the test examples.
    pub(crate) held_out: bool,
    pub(crate) threads: usize,
    pub(crate) checkpoints: Checkpoints,
}

/// A point of a learning curve.
#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub(crate) epoch: u32,
    pub(crate) train: Loss,
    pub(crate) test: Loss,
    /// Whether training had ended before, with a loss that is infinite or not a number.
    pub(crate) ended: bool,
}

impl Point {
    fn new(mlp: &Mlp, split: &Split<'_>, epoch: u32, ended: bool) -> Result<Self, Error> {
        let (train, test) = (evaluate(mlp, &split.train)?, evaluate(mlp, &split.test)?);
        Ok(Self { epoch, train, test, ended })
    }
}

/// The learning curve of one network; its last point is the result.
pub(crate) type Run = Vec<Point>;

/// `results[setting][seed]`
pub(crate) type Results<T = Run> = Vec<Vec<T>>;

impl Plan {
    pub(crate) fn new(options: &Options, data: &Data) -> Result<Self, String> {
        if options.batch > data.train {
            return Err(format!(
                "--batch is {}, but there are {} training examples",
                options.batch, data.train
            ));
        }
        let steps = steps(data.train, options.batch, options.epochs);
        let steps = u32::try_from(steps).map_err(|_| {
            format!(
                "--epochs {} makes {steps} steps, expected at most {}",
                options.epochs,
                u32::MAX
            )
        })?;

        let mut sizes = vec![data.pixels()];
        sizes.extend(&options.layers);
        sizes.push(CLASSES);
        let weights = sizes.windows(2).fold(0_u64, |sum, pair| {
            sum.saturating_add((pair[0] as u64).saturating_mul(pair[1] as u64))
        });
        if weights > MAX_WEIGHTS {
            return Err(format!(
                "the network {} has {weights} weights, expected at most {MAX_WEIGHTS}",
                join(&sizes)
            ));
        }

        let step = SgdStep::new(options.learning_rate).with_momentum(MOMENTUM);
        let plain = MlpSpec::new(&sizes).with_activation(options.activation.activation);
        let scaling = if options.classical { Scaling::Classical } else { Scaling::Inverted };
        let dropout = plain
            .clone()
            .with_input_rate(options.input_rate)
            .with_hidden_rate(options.hidden_rate)
            .with_granularity(options.granularity)
            .with_scaling(scaling);
        let mut plan = Self {
            settings: vec![
                Setting {
                    name: "without dropout".into(),
                    spec: plain,
                    step,
                    max_norm: None,
                    steps,
                },
                Setting { name: "with dropout".into(), spec: dropout, step, max_norm: None, steps },
            ],
            activation: options.activation.name.clone(),
            first_seed: 0,
            seeds: options.seeds,
            epochs: options.epochs,
            batch: options.batch,
            points: CURVE_POINTS,
            held_out: false,
            threads: options
                .threads
                .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)),
            checkpoints: Checkpoints::default(),
        };
        plan.checkpoints = Checkpoints::new(options, &mut plan, data)?;
        Ok(plan)
    }
}

/// Steps of so many epochs.
pub(crate) fn steps(train: usize, batch: usize, epochs: u32) -> u64 {
    train.div_ceil(batch) as u64 * u64::from(epochs)
}

/// Layer sizes as in `64-256-256-10`.
pub(crate) fn join(sizes: &[usize]) -> String {
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
}

/// Trains every setting with every seed, and returns what `finish` makes of each network, its data and
/// its learning curve.
///
/// Networks this small do not keep several threads busy, so each is trained by one worker, as many
/// as there are threads. Threads left over, when there are fewer networks than threads, are shared
/// out among the workers' pools, where the library's kernels use them. The results have the same
/// bits either way.
pub(crate) fn run<T: Send>(
    plan: &Plan,
    data: &Data,
    finish: impl Fn(Mlp, &Split<'_>, Run) -> Result<T, Error> + Sync,
) -> Result<Results<T>, String> {
    let settings = plan.settings.len();
    let jobs = settings * plan.seeds as usize;
    let workers = plan.threads.min(jobs);
    let pools = (0..workers)
        .map(|worker| {
            let threads = plan.threads / workers + usize::from(worker < plan.threads % workers);
            ThreadPoolBuilder::new().num_threads(threads).build()
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("cannot start {} threads: {error}", plan.threads))?;

    let done = u64::from(plan.checkpoints.epochs());
    let progress = Progress::new(jobs as u64 * u64::from(plan.epochs), done);
    let next = AtomicUsize::new(0);
    let finished = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for pool in &pools {
            scope.spawn(|| {
                pool.install(|| {
                    loop {
                        let job = next.fetch_add(1, Ordering::Relaxed);
                        if job >= jobs {
                            break;
                        }
                        let seed = plan.first_seed + (job / settings) as u64;
                        let setting = &plan.settings[job % settings];
                        let run = train(plan, setting, seed, data, &progress, &finish);
                        // After an error nobody needs the rest.
                        if run.is_err() {
                            next.store(jobs, Ordering::Relaxed);
                        }
                        finished.lock().unwrap_or_else(PoisonError::into_inner).push((job, run));
                    }
                });
            });
        }
    });

    let mut finished = finished.into_inner().unwrap_or_else(PoisonError::into_inner);
    finished.sort_by_key(|&(job, _)| job);
    let mut results: Results<T> = (0..settings).map(|_| Vec::new()).collect();
    for (job, run) in finished {
        results[job % settings].push(run.map_err(|error| error.to_string())?);
    }
    progress.finish(jobs, plan.threads);
    Ok(results)
}

/// Trains one network. For one seed, every setting has the same split of the data, the same initial
/// weights and the same mini-batches, so that differences between settings are paired.
fn train<T>(
    plan: &Plan,
    setting: &Setting,
    seed: u64,
    data: &Data,
    progress: &Progress,
    finish: impl Fn(Mlp, &Split<'_>, Run) -> Result<T, Error>,
) -> Result<T, Error> {
    let spec = setting.spec.clone().with_seed(seed);
    let (mut mlp, done) = plan.checkpoints.first(&spec)?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    // Far from the numbers that the initial weights are made of.
    rng.long_jump();
    let mut split = data.split(&mut rng);
    let mut optimiser = setting.optimiser();
    if plan.held_out {
        split = split.held_out(&mut rng);
        // Fewer examples make fewer steps than the plan's, which a u32 holds.
        let steps = steps(split.train.labels.len(), plan.batch, plan.epochs) as u32;
        optimiser.schedule = LearningRateSchedule::Linear { steps };
    }
    let mut order: Vec<usize> = (0..split.train.labels.len()).collect();
    let (mut images, mut labels) = (Vec::new(), Vec::new());

    let every = plan.epochs.div_ceil(plan.points);
    let (mut run, mut ended) = (Run::new(), false);
    for epoch in 1..=plan.epochs {
        // Each order is a shuffle of the one before it, also of those of epochs that are done.
        shuffle(&mut order, &mut rng);
        if epoch <= done {
            continue;
        }
        for batch in order.chunks(plan.batch) {
            // The network of a step that had no loss is the one before it, and stays it.
            if ended {
                break;
            }
            split.train.gather(batch, &mut images, &mut labels);
            let x = MatRef::new(&images, labels.len(), split.train.pixels)?;
            match mlp.train_step(x, &labels, &optimiser) {
                Ok(_) => {}
                Err(Error::Loss { step, loss }) => {
                    progress.say(&format!(
                        "seed {seed}, {}: the loss is {loss} at step {step}: lower --learning-rate",
                        setting.name
                    ));
                    ended = true;
                }
                Err(error) => return Err(error),
            }
        }
        // A network whose training has ended within an epoch is not one to go on with.
        if !ended {
            plan.checkpoints.save(&mlp)?;
        }
        if epoch % every == 0 || epoch == plan.epochs {
            run.push(Point::new(&mlp, &split, epoch, ended)?);
        }
        progress.step();
    }
    // Nothing was left to do.
    if run.is_empty() {
        run.push(Point::new(&mlp, &split, plan.epochs, ended)?);
    }
    finish(mlp, &split, run)
}

fn evaluate(mlp: &Mlp, examples: &Examples) -> Result<Loss, Error> {
    let x = MatRef::new(&examples.images, examples.labels.len(), examples.pixels)?;
    mlp.evaluate(x, &examples.labels)
}

/// The shuffle of Fisher and Yates.
pub(crate) fn shuffle(order: &mut [usize], rng: &mut Xoshiro256PlusPlus) {
    for last in (1..order.len()).rev() {
        // The high half of a 64 x 64-bit product is uniform up to a bias of 2^-64 times the length.
        let other = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, other as usize);
    }
}

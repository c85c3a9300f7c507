//! What it costs to say on whose threads operations run.
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench executor -- --table [--quick] [--level avx2]
//! ```
//!
//! The first table is a call that has next to nothing to do; the second one a layer on a pool of the
//! program's own beside rayon's, both of two threads.

mod support;

use std::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use criterion::Criterion;
use fused_dropout::layer::{DenseArgs, DenseLayer, dense_forward};
use fused_dropout::{Activation, Dropout, Executor, MaskKey, MaskSource, ParallelFor, testing};
use support::{Candidate, Options, Table, assert_same, matrix, matrix_mut};

/// (m, k, n): batch, inputs, units.
const SHAPES: [(usize, usize, usize); 3] =
    [(256, 1024, 1024), (128, 784, 1024), (1024, 1024, 1024)];

/// How long a thread looks for a job before it sleeps: longer than what lies between the
/// operations of a training step.
const SPIN: Duration = Duration::from_micros(50);

fn main() {
    let options = Options::new();
    if support::wants_table() {
        calls(&options);
        layers(&options);
    } else {
        let mut criterion = Criterion::default().sample_size(10).configure_from_args();
        for (name, executor) in executors() {
            let id = format!("dense_forward 1x1x1, {name}");
            criterion.bench_function(&id, |b| b.iter(|| executor.run(small_call)));
        }
        criterion.final_summary();
    }
}

/// Until the threads of one candidate sleep, and are out of the way of the other's.
const SETTLE: Duration = Duration::from_millis(1);

/// The calling thread and a second one, which spins for a while before it sleeps.
struct Two {
    jobs: Sender<Job>,
    worker: Option<JoinHandle<()>>,
}

/// Tasks for the second thread.
struct Job {
    task: &'static (dyn Fn(usize) + Sync),
    tasks: usize,
    next: &'static AtomicUsize,
    done: &'static AtomicBool,
}

/// Runs tasks until none is left.
fn run(task: &(dyn Fn(usize) + Sync), tasks: usize, next: &AtomicUsize) {
    loop {
        let i = next.fetch_add(1, Ordering::Relaxed);
        if i >= tasks {
            return;
        }
        task(i);
    }
}

impl Two {
    fn new() -> Self {
        let (jobs, receiver) = mpsc::channel();
        Self { jobs, worker: Some(thread::spawn(move || work(&receiver))) }
    }
}

/// What the second thread does.
fn work(jobs: &Receiver<Job>) {
    loop {
        let start = Instant::now();
        let job = loop {
            match jobs.try_recv() {
                Ok(job) => break Some(job),
                Err(mpsc::TryRecvError::Disconnected) => break None,
                Err(mpsc::TryRecvError::Empty) if start.elapsed() < SPIN => spin_loop(),
                Err(mpsc::TryRecvError::Empty) => break jobs.recv().ok(),
            }
        };
        let Some(job) = job else { return };
        run(job.task, job.tasks, job.next);
        job.done.store(true, Ordering::Release);
    }
}

impl ParallelFor for Two {
    fn threads(&self) -> usize {
        2
    }

    fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        // SAFETY: the worker's last access to what these references lead to is to store `done`, for
        // which this function waits; it does not unwind before, since tasks do not panic.
        let job = unsafe {
            Job {
                task: std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(
                    task,
                ),
                tasks,
                next: &*std::ptr::from_ref(&next),
                done: &*std::ptr::from_ref(&done),
            }
        };
        let sent = self.jobs.send(job).is_ok();
        run(task, tasks, &next);
        let start = Instant::now();
        while sent && !done.load(Ordering::Acquire) {
            // The worker may be waiting for this thread's core.
            if start.elapsed() < SPIN { spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.jobs = mpsc::channel().0;
        if let Some(worker) = self.worker.take() {
            worker.join().expect("a worker that does not panic");
        }
    }
}

/// A layer of one example, one input and one unit.
fn small_call() {
    let (x, w, mut y) = ([1.5], [0.5], [0.0]);
    let args = DenseArgs::new(DenseLayer::default(), matrix(&x, 1, 1), matrix(&w, 1, 1));
    let args = std::hint::black_box(args);
    dense_forward(&args, matrix_mut(&mut y, 1, 1), None, MaskSource::Key).expect("a layer");
    std::hint::black_box(y);
}

/// The executors, by name.
fn executors() -> [(&'static str, Executor); 3] {
    [
        ("rayon", Executor::rayon()),
        ("calling thread", Executor::calling_thread()),
        ("custom", Executor::custom(Two::new())),
    ]
}

fn calls(options: &Options) {
    let executors = executors();
    let mut candidates = vec![Candidate::new(small_call).named("default")];
    for (name, executor) in &executors {
        candidates.push(Candidate::new(|| executor.run(small_call)).named(*name));
    }
    let times = options.measure("call", candidates);
    let mut table = Table::new(["", "ns a call", "/ default"]);
    let names = ["default"].into_iter().chain(executors.iter().map(|(name, _)| *name));
    for (i, name) in names.enumerate() {
        let (time, ratio) = (times.min(i) * 1e9, times.ratio(i, 0));
        table.row(vec![name.to_owned(), format!("{time:.1}"), format!("{ratio:.3}")]);
    }
    table.print(
        "dense_forward 1 x 1 x 1, each call in an `Executor::run` of its own save for the default: \
         smallest times, median ratios",
    );
}

fn layers(options: &Options) {
    let pool = support::pool(2);
    let two = Executor::custom(Two::new());
    let mut table =
        Table::new(["m x k x n", "level", "rayon, us", "own pool, us", "speed / rayon"]);
    for &(m, k, n) in options.cases(&SHAPES, 1) {
        let (x, w) = (support::uniform(m * k, 1), support::uniform(k * n, 2));
        let (bias, key) = (support::uniform(n, 3), MaskKey::new(7, 3, 5).expect("a small layer"));
        let half = Dropout::new(0.5).expect("a rate").with_key(key);
        let layer = DenseLayer::new(Activation::Relu).with_output(half);
        let args = DenseArgs::new(layer, matrix(&x, m, k), matrix(&w, k, n)).with_bias(&bias);
        let forward = |level, y: &Mutex<Vec<f32>>| {
            let y = &mut *y.lock().expect("no call panicked");
            let run = || dense_forward(&args, matrix_mut(y, m, n), None, MaskSource::Key);
            testing::at_level(level, run).expect("an available level").expect("a layer");
        };
        for level in options.fast_levels() {
            let [by_rayon, by_two] = [(); 2].map(|()| Mutex::new(vec![0.0; m * n]));
            pool.install(|| forward(level, &by_rayon));
            two.run(|| forward(level, &by_two));
            let results = [&by_rayon, &by_two].map(|y| y.lock().expect("no call panicked").clone());
            assert_same("rayon and a pool", &results[0], &results[1]);
            let by_rayon = Candidate::on(&pool, || forward(level, &by_rayon)).named("rayon");
            let by_two = Candidate::new(|| two.run(|| forward(level, &by_two))).named("own pool");
            let candidates = [by_rayon, by_two].map(|c| c.of(level).settle(SETTLE));
            let times = options.measure(&format!("{m}x{k}x{n}"), candidates.into());
            let time = |i| format!("{:.0}", times.min(i) * 1e6);
            let ratio = format!("{:.3}", times.ratio(0, 1));
            table.row(vec![format!("{m}x{k}x{n}"), level.to_string(), time(0), time(1), ratio]);
        }
    }
    table.print("bias + ReLU + dropout 0.5 on two threads: smallest times, median ratio");
}

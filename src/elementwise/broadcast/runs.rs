//! Runs of elements that share a decision: scaled or cleared as a whole.

use crate::Level;
use crate::elementwise::kernel::TASK;
use crate::isa::{Isa, Kernel, load, store};
use crate::mask::Nest;
use crate::threads::for_each;
use crate::view::{Source, Target};

#[cfg(test)]
mod tests;

/// A pass over a tensor in which `run` elements that follow each other share each decision.
#[derive(Clone, Copy)]
pub(super) struct Runs<'a> {
    pub(super) x: Source,
    pub(super) y: Target,
    pub(super) len: usize,
    /// The loops around the runs.
    pub(super) nest: Nest,
    pub(super) run: usize,
    pub(super) words: &'a [u32],
    pub(super) scale: f32,
    /// Whether y is written past the caches.
    pub(super) streams: bool,
}

impl Runs<'_> {
    /// # Safety
    ///
    /// x and y have `len` elements, one after the other, nobody else accesses those of y, and the
    /// words have a bit for each turn of the nest.
    pub(super) unsafe fn run(self, level: Level) {
        for_each(self.len.div_ceil(TASK), |i| {
            let first = i * TASK;
            level.vectorize(RunTask { runs: self, first, n: TASK.min(self.len - first) });
        });
    }
}

/// One task's share of the runs: `n` elements from `first` on.
struct RunTask<'a> {
    runs: Runs<'a>,
    first: usize,
    n: usize,
}

impl Kernel for RunTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Runs { x, y, nest, run, words, scale, streams, .. } = self.runs;
        let mut turns = nest.walk_from(self.first / run);
        let mut at = self.first % run;
        // SAFETY: elements `first..first + n` are this task's, in x and in y.
        unsafe {
            let (x, y) = (x.at(0, self.first), y.at(0, self.first));
            let mut stream = Stream::new::<I>(y);
            let mut i = 0;
            while i < self.n {
                let part = (run - at).min(self.n - i);
                let bit = turns.bit();
                let kept = words[bit / 32] >> (bit % 32) & 1 == 1;
                match kept {
                    _ if streams => {
                        let x = if kept { Some(x.add(i)) } else { None };
                        stream.put(isa, x, y.add(i), part, scale);
                    }
                    true => scaled(isa, x.add(i), y.add(i), part, scale),
                    false => zeros(isa, y.add(i), part),
                }
                (i, at) = (i + part, at + part);
                if at == run {
                    at = 0;
                    turns.advance();
                }
            }
            if streams {
                stream.write(y.add(self.n));
            }
        }
        isa.fence();
    }
}

/// Runs that follow each other, written past the caches in whole vectors. One that several runs share
/// waits until it is full.
struct Stream {
    /// Room for the longest vector.
    vector: [f32; 16],
    /// Elements of the vector that are there, and how many of these belong to another task.
    held: usize,
    skip: usize,
}

impl Stream {
    /// Nothing yet, of what is to be written from `y` on.
    #[inline(always)]
    fn new<I: Isa>(y: *mut f32) -> Self {
        let skip = y.addr() / 4 % I::LANES;
        Self { vector: [0.0; 16], held: skip, skip }
    }

    /// Appends a run: `x · scale`, or zeros.
    ///
    /// # Safety
    ///
    /// `x` is valid for reads and `y`, which follows the last run, for writes of `n` floats.
    #[inline(always)]
    unsafe fn put<I: Isa>(
        &mut self,
        isa: I,
        x: Option<*const f32>,
        y: *mut f32,
        n: usize,
        scale: f32,
    ) {
        let factor = isa.splat(scale);
        let mut i = 0;
        // SAFETY: the caller's promise: all accesses to x and y are below `n`, save for the elements of a
        // vector that were held back. Where none is held back y is at a whole vector.
        unsafe {
            if self.held > 0 {
                while i < n && self.held < I::LANES {
                    self.hold(x, i, scale);
                    i += 1;
                }
                if self.held < I::LANES {
                    return;
                }
                if self.skip == 0 {
                    isa.stream(y.add(i).sub(I::LANES), isa.load(self.vector.as_ptr()));
                } else {
                    self.write(y.add(i));
                }
                (self.held, self.skip) = (0, 0);
            }
            match x {
                Some(x) => {
                    while i + I::LANES <= n {
                        isa.stream(y.add(i), isa.mul(isa.load(x.add(i)), factor));
                        i += I::LANES;
                    }
                }
                None => {
                    while i + I::LANES <= n {
                        isa.stream(y.add(i), isa.splat(0.0));
                        i += I::LANES;
                    }
                }
            }
            while i < n {
                self.hold(x, i, scale);
                i += 1;
            }
        }
    }

    /// # Safety
    ///
    /// `x` is valid for a read of element `i`; the vector is not full.
    #[inline(always)]
    unsafe fn hold(&mut self, x: Option<*const f32>, i: usize, scale: f32) {
        self.vector[self.held] = match x {
            // SAFETY: the caller's promise.
            Some(x) => unsafe { *x.add(i) * scale },
            None => 0.0,
        };
        self.held += 1;
    }

    /// Writes the elements that are held back, which end at `end`, one by one.
    ///
    /// # Safety
    ///
    /// They are valid for writes.
    #[inline(always)]
    unsafe fn write(&self, end: *mut f32) {
        let own = &self.vector[self.skip..self.held];
        // SAFETY: the caller's promise.
        unsafe { end.sub(own.len()).copy_from_nonoverlapping(own.as_ptr(), own.len()) };
    }
}

/// `y = x · scale`.
///
/// # Safety
///
/// `x` is valid for reads and `y` for writes of `n` floats.
#[inline(always)]
unsafe fn scaled<I: Isa>(isa: I, x: *const f32, y: *mut f32, n: usize, scale: f32) {
    let scale = isa.splat(scale);
    let mut i = 0;
    // SAFETY: all accesses are below `n`.
    unsafe {
        while i + 4 * I::LANES <= n {
            for v in 0..4 {
                let at = i + v * I::LANES;
                isa.store(y.add(at), isa.mul(isa.load(x.add(at)), scale));
            }
            i += 4 * I::LANES;
        }
        while i < n {
            let part = I::LANES.min(n - i);
            store(isa, y.add(i), part, isa.mul(load(isa, x.add(i), part), scale));
            i += part;
        }
    }
}

/// `y = 0`.
///
/// # Safety
///
/// `y` is valid for writes of `n` floats.
#[inline(always)]
unsafe fn zeros<I: Isa>(isa: I, y: *mut f32, n: usize) {
    let mut i = 0;
    // SAFETY: all accesses are below `n`.
    unsafe {
        while i + I::LANES <= n {
            isa.store(y.add(i), isa.splat(0.0));
            i += I::LANES;
        }
        if i < n {
            isa.store_first(y.add(i), n - i, isa.splat(0.0));
        }
    }
}

//! A layer of which units are dropped, forward, backward and update, by the reference and by the fast
//! functions.

use fused_dropout::layer::{
    BlockDeal, BlockSelection, BlockShape, DenseArgs, DenseLayer, DenseUpdate, Gradients,
    KeptBlocks, KeptUnits, OutputGradient, PackedWeight, Parameters, Side, dense_backward,
    dense_forward, dense_update,
};
use fused_dropout::update::SgdStep;
use fused_dropout::{
    Activation, Dropout, KeyedDropout, Mask, MaskKey, MaskSource, Saved, reference, testing,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::{
    Padded, activations, assert_same, bits, for_each_level, numbers, sgd_step, with_threads,
};

pub(crate) fn key(layer: u32) -> MaskKey {
    MaskKey::new(5, layer, 6).unwrap()
}

/// Dropout of elements.
pub(crate) fn elements(rate: f64, layer: u32) -> KeyedDropout {
    Dropout::new(rate).unwrap().with_key(key(layer).with_origin(3, 77))
}

/// One side of a layer of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Drop {
    Elements(f64),
    Bernoulli(f64),
    Exact(f64),
    /// Every third unit, and those of a stretch.
    List,
    Blocks(BlockShape, f64),
}

impl Drop {
    pub(crate) fn kept(self, units: usize, layer: u32) -> Option<KeptUnits> {
        let dropout = |rate, key| Dropout::new(rate).unwrap().with_key(key);
        Some(match self {
            Drop::Elements(_) | Drop::Blocks(..) => return None,
            Drop::Bernoulli(rate) => {
                let dropout = dropout(rate, key(layer).with_origin(0, 77));
                KeptUnits::bernoulli(units, &dropout).unwrap()
            }
            Drop::Exact(rate) => KeptUnits::exact(units, &dropout(rate, key(layer))).unwrap(),
            Drop::List => {
                let list: Vec<u32> =
                    (0..units as u32).filter(|u| u % 3 == 1 || (u + 2 * layer) % 50 > 25).collect();
                KeptUnits::from_indices(units, &list, 1.5).unwrap()
            }
        })
    }

    /// The kept blocks for so many rows, which are those of the logical matrix from row 5 on.
    pub(crate) fn blocks(self, rows: usize, units: usize, layer: u32) -> Option<KeptBlocks> {
        let Drop::Blocks(shape, rate) = self else { return None };
        let dropout = Dropout::new(rate).unwrap().with_key(key(layer).with_origin(5, 0));
        Some(KeptBlocks::draw((rows, units), shape, &dropout).unwrap())
    }

    pub(crate) fn side<'a>(
        self,
        kept: &'a Option<KeptUnits>,
        blocks: &'a Option<KeptBlocks>,
        layer: u32,
    ) -> Side<'a> {
        match (self, kept, blocks) {
            (Drop::Elements(rate), ..) => Side::Elements(elements(rate, layer)),
            (_, Some(kept), _) => Side::Units(kept),
            (_, _, Some(kept)) => Side::Blocks(kept),
            (_, None, None) => Side::Whole,
        }
    }
}

/// What a pass does about its mask, where elements of the output are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Masking {
    Key,
    Store,
    /// A mask that is not that of the key.
    Given,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) units: usize,
    pub(crate) activation: Activation,
    pub(crate) input: Drop,
    pub(crate) output: Drop,
    pub(crate) weight_rate: Option<f64>,
    pub(crate) residual: bool,
    pub(crate) momentum: bool,
    /// L2 and L1.
    pub(crate) penalties: (f32, f32),
    pub(crate) limit: Option<f32>,
    pub(crate) extra: usize,
    /// Whether W and its velocity are stored as [units, inputs].
    pub(crate) transposed: (bool, bool),
    /// Whether the fast functions read packed weights.
    pub(crate) packed: bool,
    pub(crate) masking: Masking,
    /// Whether dz takes the place of dy.
    pub(crate) overwrite: bool,
}

/// The kept inputs and units, where units are dropped, and the kept blocks of both, where blocks are.
pub(crate) type Kept = (Option<KeptUnits>, Option<KeptUnits>, [Option<KeptBlocks>; 2]);

/// Everything that the three operations write.
pub(crate) struct State {
    pub(crate) y: Padded,
    pub(crate) z: Padded,
    /// dy, or dz in its place.
    pub(crate) dy: Padded,
    pub(crate) dx: Padded,
    pub(crate) dw: Padded,
    pub(crate) db: Vec<f32>,
    pub(crate) w: Padded,
    pub(crate) velocity: Padded,
    pub(crate) bias: Vec<f32>,
    pub(crate) bias_velocity: Vec<f32>,
}

impl State {
    fn all(&self) -> [(&'static str, Vec<f32>); 10] {
        [
            ("y", self.y.values()),
            ("z", self.z.values()),
            ("dy", self.dy.values()),
            ("dx", self.dx.values()),
            ("dW", self.dw.values()),
            ("db", self.db.clone()),
            ("W", self.w.values()),
            ("the velocity of W", self.velocity.values()),
            ("the bias", self.bias.clone()),
            ("the velocity of the bias", self.bias_velocity.clone()),
        ]
    }
}

impl Case {
    pub(crate) fn new(
        batch: usize,
        inputs: usize,
        units: usize,
        input: Drop,
        output: Drop,
    ) -> Self {
        Self {
            batch,
            inputs,
            units,
            activation: Activation::Relu,
            input,
            output,
            weight_rate: None,
            residual: false,
            momentum: true,
            penalties: (0.01, 0.02),
            limit: None,
            extra: 0,
            transposed: (false, false),
            packed: false,
            masking: Masking::Key,
            overwrite: false,
        }
    }

    pub(crate) fn kept(&self) -> Kept {
        let blocks = [
            self.input.blocks(self.batch, self.inputs, 1),
            self.output.blocks(self.batch, self.units, 2),
        ];
        (self.input.kept(self.inputs, 1), self.output.kept(self.units, 2), blocks)
    }

    /// Columns of x and of y.
    pub(crate) fn widths(&self, kept: &Kept) -> (usize, usize) {
        let width = |kept: &Option<KeptUnits>, n| kept.as_ref().map_or(n, KeptUnits::len);
        (width(&kept.0, self.inputs), width(&kept.1, self.units))
    }

    fn layer<'a>(&self, kept: &'a Kept) -> DenseLayer<'a> {
        let layer = DenseLayer::new(self.activation)
            .with_input(self.input.side(&kept.0, &kept.2[0], 1))
            .with_output(self.output.side(&kept.1, &kept.2[1], 2));
        self.with_weight_dropout(layer)
    }

    pub(crate) fn with_weight_dropout<'a>(&self, layer: DenseLayer<'a>) -> DenseLayer<'a> {
        match self.weight_rate {
            Some(rate) => layer.with_weight_dropout(elements(rate, 3)),
            None => layer,
        }
    }

    pub(crate) fn step(&self) -> SgdStep {
        let (weight_decay, l1) = self.penalties;
        sgd_step(0.05, if self.momentum { 0.9 } else { 0.0 }, weight_decay, l1)
    }

    /// What backward is given of what forward wrote.
    pub(crate) fn saved<'a>(&self, s: (&'a Padded, &'a Padded)) -> Saved<'a> {
        let (y, z) = s;
        match self.activation {
            Activation::Identity => Saved::Nothing,
            Activation::Gelu | Activation::Silu | Activation::GeluTanh => {
                Saved::PreActivation(z.view())
            }
            _ if self.residual => Saved::PreActivation(z.view()),
            _ => Saved::Output(y.view()),
        }
    }

    /// The mask that a pass is given, or one to store in.
    fn mask(&self, n: usize) -> Mask {
        match self.masking {
            Masking::Given => Mask::generate(self.batch, n, &elements(0.4, 9)).unwrap(),
            Masking::Key | Masking::Store => Mask::new(self.batch, n).unwrap(),
        }
    }

    fn source<'m>(&self, mask: &'m mut Mask) -> MaskSource<'m> {
        match (self.output, self.masking) {
            (Drop::Elements(_), Masking::Store) => MaskSource::Store(mask),
            (Drop::Elements(_), Masking::Given) => MaskSource::Given(mask),
            _ => MaskSource::Key,
        }
    }

    /// Asserts that a mask which was to be stored is that of the key.
    fn check_stored(&self, mask: &Mask) {
        if let (Drop::Elements(rate), Masking::Store) = (self.output, self.masking) {
            let drawn = Mask::generate(self.batch, self.units, &elements(rate, 2)).unwrap();
            assert_eq!(*mask, drawn, "{self:?}");
        }
    }

    /// All matrices before the first operation, in the layouts of the case.
    pub(crate) fn start(&self, kept: &Kept) -> State {
        let Case { batch, inputs, units, extra, transposed, .. } = *self;
        let (m, n) = self.widths(kept);
        let blank = |rows, cols, t| Padded::new(&vec![9.0; rows * cols], rows, cols, extra, t);
        let whole = |seed, t| Padded::new(&numbers(inputs * units, seed), inputs, units, extra, t);
        State {
            y: blank(batch, n, transposed.1),
            z: blank(batch, n, false),
            dy: Padded::new(&numbers(batch * n, 8), batch, n, extra, transposed.0),
            dx: blank(batch, m, transposed.0),
            dw: blank(m, n, transposed.1),
            db: vec![9.0; n],
            w: whole(1, transposed.0),
            velocity: whole(2, transposed.1),
            bias: numbers(units, 3),
            bias_velocity: numbers(units, 4),
        }
    }

    /// Forward, backward and update, of the reference or of the fast functions.
    pub(crate) fn run(&self, fast: bool) -> State {
        let Case { batch, extra, transposed, .. } = *self;
        let kept = self.kept();
        let (m, n) = self.widths(&kept);
        let layer = self.layer(&kept);
        let mut s = self.start(&kept);
        let x = Padded::new(&numbers(batch * m, 7), batch, m, extra, transposed.1);
        let residual = Padded::new(&numbers(batch * n, 6), batch, n, extra, transposed.1);
        let residual = self.residual.then(|| residual.view());
        let blocks = kept.2.iter().any(Option::is_some);
        let packed = (fast && self.packed && !blocks).then(|| {
            let forward = PackedWeight::for_layer(&layer, s.w.view()).unwrap();
            (forward, PackedWeight::for_input_gradient(&layer, s.w.view()).unwrap())
        });

        let mut args = DenseArgs::new(layer, x.view(), s.w.view()).with_bias(&s.bias);
        args.residual = residual;
        args.packed = packed.as_ref().map(|(forward, _)| forward);
        let (y, z) = (s.y.view_mut(), Some(s.z.view_mut()));
        let mut stored = self.mask(n);
        let mask = self.source(&mut stored);
        match fast {
            true => dense_forward(&args, y, z, mask),
            false => reference::dense_forward(&args, y, z, mask),
        }
        .unwrap();
        self.check_stored(&stored);

        args.packed = packed.as_ref().map(|(_, gradient)| gradient);
        let saved = self.saved((&s.y, &s.z));
        let start = s.dy.clone();
        let gradients = Gradients::default()
            .with_dx(s.dx.view_mut())
            .with_dw(s.dw.view_mut())
            .with_db(&mut s.db);
        let mut stored = self.mask(n);
        let mask = self.source(&mut stored);
        let dy = self.output_gradient(&mut s.dy);
        match fast {
            true => dense_backward(&args, &saved, dy, gradients, mask),
            false => reference::dense_backward(&args, &saved, dy, gradients, mask),
        }
        .unwrap();
        self.check_stored(&stored);

        let mut update = DenseUpdate::new(layer, x.view(), self.step());
        update.residual = residual;
        update.max_norm = self.limit;
        update.packed = packed.as_ref().map(|(_, gradient)| gradient);
        let mut parameters = Parameters::new(s.w.view_mut()).with_bias(&mut s.bias);
        if self.momentum {
            parameters = parameters
                .with_w_state(s.velocity.view_mut())
                .with_bias_state(&mut s.bias_velocity[..]);
        }
        let (before, dx) = (s.dx.values(), Some(s.dx.view_mut()));
        let mut dz = start;
        let mut stored = self.mask(n);
        let mask = self.source(&mut stored);
        let dy = self.output_gradient(&mut dz);
        match fast {
            true => dense_update(&update, parameters, &saved, dy, dx, mask),
            false => reference::dense_update(&update, parameters, &saved, dy, dx, mask),
        }
        .unwrap();
        self.check_stored(&stored);
        assert_eq!(bits(&s.dx.values()), bits(&before), "dx is for the weights before the update");
        assert_eq!(bits(&dz.values()), bits(&s.dy.values()), "dz is that of the backward pass");
        self.check_removed(&s, &kept);
        s
    }

    fn output_gradient<'d>(&self, dy: &'d mut Padded) -> OutputGradient<'d> {
        match self.overwrite {
            true => OutputGradient::Overwrite(dy.view_mut()),
            false => OutputGradient::Keep(dy.view()),
        }
    }

    /// What is removed keeps its bits.
    fn check_removed(&self, s: &State, kept: &Kept) {
        let Case { inputs, units, .. } = *self;
        let is_kept = |kept: &Option<KeptUnits>, unit: usize| {
            kept.as_ref().is_none_or(|kept| kept.indices().contains(&(unit as u32)))
        };
        let rows: Vec<bool> = (0..inputs).map(|i| is_kept(&kept.0, i)).collect();
        let cols: Vec<bool> = (0..units).map(|j| is_kept(&kept.1, j)).collect();
        for (now, seed) in [(s.w.values(), 1), (s.velocity.values(), 2)] {
            for (i, (now, before)) in now.iter().zip(numbers(inputs * units, seed)).enumerate() {
                let removed = !(rows[i / units] && cols[i % units]);
                assert!(!removed || now.to_bits() == before.to_bits(), "element {i} of {self:?}");
            }
        }
        for (now, seed) in [(&s.bias, 3), (&s.bias_velocity, 4)] {
            for (j, (now, before)) in now.iter().zip(numbers(units, seed)).enumerate() {
                assert!(cols[j] || now.to_bits() == before.to_bits(), "unit {j} of {self:?}");
            }
        }
    }

    /// The fast functions against the reference.
    pub(crate) fn check(&self, threads: &[usize]) {
        let expected = self.run(false).all();
        for_each_level(|level| {
            for &threads in threads {
                let run = || testing::at_level(level, || self.run(true)).unwrap();
                let all = with_threads(threads, run).all();
                for ((what, fast), (_, expected)) in all.iter().zip(&expected) {
                    let terms = self.batch.max(self.units).max(self.inputs);
                    let what = format!("{what} on {threads} threads of {self:?}");
                    let (fast, expected) = (unsigned(fast), unsigned(expected));
                    assert_same(level, &fast, &expected, (terms, 40.0), &what);
                }
            }
        });
    }
}

/// The numbers without the sign of a zero: x + 0 is x, save that -0 becomes +0.
pub(crate) fn unsigned(values: &[f32]) -> Vec<f32> {
    values.iter().map(|x| x + 0.0).collect()
}

pub(crate) fn drops() -> impl Strategy<Value = Drop> {
    select(vec![
        Drop::Elements(0.0),
        Drop::Elements(0.3),
        Drop::Bernoulli(0.5),
        Drop::Bernoulli(0.9),
        Drop::Exact(0.2),
        Drop::Exact(0.5),
        Drop::Exact(1.0),
        Drop::List,
    ])
}

/// Blocks of every kind: of single rows and units, of what fills vectors and what does not, and of more
/// than there are.
pub(crate) fn blocks(rows: usize) -> impl Strategy<Value = Drop> {
    let units = select(vec![1, 3, 8, 16, 24, 32, 48, 1000]);
    let selection = select(vec![BlockSelection::Exact, BlockSelection::Bernoulli]);
    let deal = select(vec![BlockDeal::Fixed, BlockDeal::Shifted, BlockDeal::Permuted]);
    let rate = select(vec![0.0, 0.25, 0.5, 0.9, 1.0]);
    (units, selection, deal, rate).prop_map(move |(units, selection, deal, rate)| {
        let shape = BlockShape::new(rows, units).unwrap();
        Drop::Blocks(shape.with_selection(selection).with_deal(deal), rate)
    })
}

/// [`combinations`] with blocks dropped on one side or both.
pub(crate) fn with_blocks(sizes: (usize, usize, usize)) -> impl Strategy<Value = Case> {
    let sides = select(vec![1usize, 4, 10, 16, 33])
        .prop_flat_map(|rows| (blocks(rows), blocks(rows), select(vec![0, 1, 2, 2])));
    (combinations(sizes), sides).prop_map(|(mut case, (input, output, sides))| {
        if sides != 1 {
            case.input = input;
        }
        if sides != 0 {
            case.output = output;
        }
        case
    })
}

/// Layers that drop something on either side, with all their weights, without a residual.
pub(crate) fn cases(sizes: (usize, usize, usize)) -> impl Strategy<Value = Case> {
    let (batch, inputs, units) = sizes;
    let limit = proptest::option::of(Just(2.5f32));
    let penalties = select(vec![(0.0f32, 0.0f32), (0.01, 0.0), (0.01, 0.02)]);
    let rest =
        (drops(), drops(), any::<bool>(), penalties, limit, 0usize..3, any::<(bool, bool)>());
    (0..batch, 0..inputs, 0..units, activations(), rest).prop_map(
        |(batch, inputs, units, activation, rest)| {
            let (input, output, momentum, penalties, limit, extra, transposed) = rest;
            Case {
                activation,
                momentum,
                penalties,
                limit,
                extra,
                transposed,
                ..Case::new(batch, inputs, units, input, output)
            }
        },
    )
}

/// The same with dropout of weights, a residual, packed weights, masks that are stored or given, and dz
/// in place of dy, in all combinations.
pub(crate) fn combinations(sizes: (usize, usize, usize)) -> impl Strategy<Value = Case> {
    let weight_rate = proptest::option::of(select(vec![0.0, 0.4, 1.0]));
    let masking = select(vec![Masking::Key, Masking::Store, Masking::Given]);
    (cases(sizes), weight_rate, masking, any::<[bool; 3]>()).prop_map(
        |(case, weight_rate, masking, [residual, packed, overwrite])| Case {
            weight_rate,
            residual,
            packed,
            masking,
            overwrite,
            ..case
        },
    )
}

//! Views of ndarray's arrays, and arrays of views: the same elements at the same addresses, or an error
//! that names the strides.

use fused_dropout::prelude::*;
use fused_dropout::{Error, reference};
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, Ix2, ShapeBuilder, Slice};
use proptest::prelude::*;

/// A part of each axis, with a step that may be negative.
#[derive(Clone, Copy, Debug)]
struct Cut {
    first: usize,
    count: usize,
    step: isize,
}

impl Cut {
    fn slice(self) -> Slice {
        let first = self.first as isize;
        Slice::new(first, Some(first + self.count as isize), self.step)
    }
}

fn cuts() -> impl Strategy<Value = Cut> {
    let steps =
        prop_oneof![4 => Just(1isize), 1 => Just(2), 1 => Just(5), 1 => Just(-1), 1 => Just(-2)];
    (0usize..4, 0usize..9, steps).prop_map(|(first, count, step)| Cut { first, count, step })
}

/// An array whose elements are all different, of either layout.
fn numbered(fortran: bool) -> Array2<f32> {
    Array2::from_shape_fn((12, 12).set_f(fortran), |(r, c)| (100 * r + c) as f32)
}

/// Whether the crate's views can be such an array: along an axis with several elements strides are
/// positive, one of them is 1, and lines do not overlap.
fn is_a_matrix<T>(array: &ArrayView2<'_, T>) -> bool {
    let ((rows, cols), strides) = (array.dim(), array.strides());
    let lines = |lines: usize, step: isize, line: usize, one: isize| {
        (line == 1 || one == 1) && (lines == 1 || step >= line as isize)
    };
    array.is_empty()
        || lines(rows, strides[0], cols, strides[1])
        || lines(cols, strides[1], rows, strides[0])
}

/// Each element is at the address that the array has it at.
#[track_caller]
fn assert_same_elements<T: Copy + PartialEq + std::fmt::Debug>(
    view: MatRef<'_, T>,
    array: &ArrayView2<'_, T>,
) {
    assert_eq!((view.rows(), view.cols()), array.dim());
    for ((r, c), element) in array.indexed_iter() {
        assert_eq!(view.get(r, c), Some(*element), "({r}, {c})");
    }
    assert_eq!((view.get(view.rows(), 0), view.get(0, view.cols())), (None, None));
    for r in 0..view.rows() {
        if let Some(row) = view.row(r) {
            assert_eq!(ArrayView1::from(row), array.row(r));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn elements_are_the_same(rows in cuts(), cols in cuts(), fortran: bool, transposed: bool) {
        let mut array = numbered(fortran);
        let whole = array.clone();
        let mut part = array.slice_each_axis_mut(|axis| match axis.axis {
            Axis(0) => rows.slice(),
            _ => cols.slice(),
        });
        if transposed {
            part = part.reversed_axes();
        }
        let shared = part.view();
        let doubles = Array2::from_shape_fn(shared.dim(), |at| f64::from(shared[at]));
        assert_same_elements(MatRef::try_from(&doubles).unwrap(), &doubles.view());
        if !is_a_matrix(&shared) {
            let (row_stride, col_stride) = (shared.strides()[0], shared.strides()[1]);
            let (rows, cols) = shared.dim();
            let error = Error::ArrayStrides { rows, cols, row_stride, col_stride };
            prop_assert_eq!(MatRef::try_from(shared).unwrap_err(), error.clone());
            prop_assert_eq!(MatMut::try_from(part.view_mut()).unwrap_err(), error);
            return Ok(());
        }
        let view = MatRef::try_from(shared).unwrap();
        assert_same_elements(view, &shared);
        assert_same_elements(view.t(), &shared.t());
        let back = ArrayView2::try_from(view).unwrap();
        prop_assert_eq!(back, shared);
        if !back.is_empty() {
            prop_assert_eq!(back.as_ptr(), shared.as_ptr(), "nothing is copied");
        }

        // Each element through the view, and some through the array of the view.
        let old = part.to_owned();
        let mut view = MatMut::try_from(part.view_mut()).unwrap();
        for ((r, c), element) in old.indexed_iter() {
            prop_assert_eq!(view.get(r, c), Some(*element));
            view.set(r, c, -1.0 - element).unwrap();
        }
        prop_assert_eq!(view.reborrow().t().rows(), old.ncols());
        let mut back = ArrayViewMut2::try_from(view).unwrap();
        back.diag_mut().map_inplace(|x| *x -= 0.5);
        prop_assert_eq!(&part, &Array2::from_shape_fn(old.dim(), |(r, c)| {
            -1.0 - old[[r, c]] - if r == c { 0.5 } else { 0.0 }
        }));
        let changed = array.iter().zip(&whole).filter(|(new, old)| new != old).count();
        prop_assert_eq!(changed, old.len(), "an element between the rows was written");
    }
}

/// Two views of one array, whose rows lie between each other's, live at the same time.
#[test]
fn the_gaps_of_a_view_belong_to_others() {
    let mut array = numbered(false);
    let (left, right) = array.view_mut().split_at(Axis(1), 5);
    let (mut left, mut right) = (MatMut::try_from(left).unwrap(), MatMut::try_from(right).unwrap());
    for r in 0..12 {
        left.row(r).unwrap().fill(1.0);
        right.row(r).unwrap().fill(2.0);
        left.set(r, 4, 3.0).unwrap();
    }
    let expected = Array2::from_shape_fn((12, 12), |(_, c)| {
        [1.0, 3.0, 2.0][(c > 3) as usize + (c > 4) as usize]
    });
    assert_eq!(array, expected);
}

#[test]
fn lines_of_one_element_may_have_any_positive_stride() {
    let array = numbered(false);
    let column = array.slice_axis(Axis(1), Slice::new(3, Some(4), 1));
    assert_same_elements(MatRef::try_from(column).unwrap(), &column);
    let every_third = column.slice_axis(Axis(0), Slice::new(0, None, 3));
    assert_same_elements(MatRef::try_from(every_third).unwrap(), &every_third);
    let row = every_third.t();
    assert_same_elements(MatRef::try_from(row).unwrap(), &row);
    assert!(MatRef::try_from(column.slice_axis(Axis(0), Slice::new(0, None, -1))).is_err());
    let one = column.slice_axis(Axis(0), Slice::new(4, Some(5), -1));
    assert_eq!(MatRef::try_from(one).unwrap().get(0, 0), Some(403.0));
}

#[test]
fn what_is_refused_names_the_strides() {
    let array = numbered(false);
    let text = |view: ArrayView2<'_, f32>| MatRef::try_from(view).unwrap_err().to_string();
    let reversed = array.slice_axis(Axis(0), Slice::new(0, Some(3), -1));
    assert_eq!(
        text(reversed),
        "an array of 3 x 12 has the strides -12 and 1: one must be 1, and the other at least the number \
         of elements along the first"
    );
    let row = ArrayView1::from(&[1.0, 2.0]);
    assert!(text(row.broadcast((4, 2)).unwrap()).contains("4 x 2 has the strides 0 and 1"));
    let apart = array.slice_each_axis(|_| Slice::new(0, None, 2));
    assert!(text(apart).contains("6 x 6 has the strides 24 and 2"));
}

#[test]
fn arrays_without_elements() {
    for dim in [(0, 0), (0, 7), (7, 0)] {
        let mut array = Array2::<f32>::zeros(dim);
        assert_same_elements(MatRef::try_from(&array).unwrap(), &array.view());
        let view = MatMut::try_from(&mut array).unwrap();
        assert_eq!(ArrayViewMut2::try_from(view.t()).unwrap().dim(), (dim.1, dim.0));
    }
    // More rows than ndarray counts.
    let view = MatRef::<f32>::new(&[], usize::MAX, 0).unwrap();
    let error = ArrayView2::try_from(view).unwrap_err();
    assert_eq!(error, Error::Overflow { rows: usize::MAX, stride: 0 });
    let view = MatMut::<f32>::new(&mut [], 0, usize::MAX).unwrap();
    assert!(ArrayViewMut2::try_from(view).is_err());
}

/// Shared ownership, copies on write and slices convert as arrays do.
#[test]
fn every_kind_of_array() {
    let array = numbered(true);
    let shared = array.clone().into_shared();
    let borrowed = ndarray::CowArray::<f32, Ix2>::from(array.view());
    let mut copy = array.clone();
    let view = copy.view_mut();
    for converted in [
        MatRef::try_from(&array),
        MatRef::try_from(&shared),
        MatRef::try_from(&borrowed),
        MatRef::try_from(&view),
    ] {
        assert_same_elements(converted.unwrap(), &array.view());
    }
}

/// A layer on transposed arrays and on parts of arrays has the bits of one on plain copies of them.
#[test]
fn a_layer_on_arrays() {
    let (x, w) = (numbered(false) / 500.0 - 1.0, numbered(true) / 600.0 - 1.0);
    let (x, w) =
        (x.t(), w.slice_each_axis(|a| Slice::new(0, Some(if a.axis.0 == 0 { 12 } else { 7 }), 1)));
    let half = Dropout::new(0.5).unwrap().with_key(MaskKey::new(1, 2, 3).unwrap());
    let layer = DenseLayer::new(Activation::Relu).with_output(half);
    let mut expected = vec![9.0; 12 * 7];
    let (x_copy, w_copy): (Vec<f32>, Vec<f32>) =
        (x.iter().copied().collect(), w.iter().copied().collect());
    let plain = DenseArgs::new(
        layer,
        MatRef::new(&x_copy, 12, 12).unwrap(),
        MatRef::new(&w_copy, 12, 7).unwrap(),
    );
    let to = MatMut::new(&mut expected, 12, 7).unwrap();
    dense_forward(&plain, to, None, MaskSource::Key).unwrap();
    let args = DenseArgs::new(layer, x.try_into().unwrap(), w.try_into().unwrap());
    let mut y = Array2::from_elem((7, 12), 9.0);
    let to = MatMut::try_from(y.view_mut().reversed_axes()).unwrap();
    dense_forward(&args, to, None, MaskSource::Key).unwrap();
    assert_eq!(y.t().iter().copied().collect::<Vec<f32>>(), expected);
    let to = MatMut::try_from(&mut y).unwrap().t();
    reference::dense_forward(&args, to, None, MaskSource::Key).unwrap();
    assert!(y.t().iter().zip(&expected).all(|(y, expected)| (y - expected).abs() <= 1e-5));
}

//! Masks and selections at their limits: sizes that memory does not hold, nothing to do, addresses
//! and numbers that are refused, and what the errors say.

use fused_dropout::layer::KeptUnits;
use fused_dropout::mask::{BroadcastShape, Rates};
use fused_dropout::{Dropout, Error, KeyedDropout, Mask, MaskKey};

fn key() -> MaskKey {
    MaskKey::new(8, 2, 5).unwrap()
}

fn half() -> KeyedDropout {
    Dropout::new(0.5).unwrap().with_key(key())
}

fn at(row0: u64, col0: u64) -> KeyedDropout {
    half().with_key(key().with_origin(row0, col0))
}

/// More than any address space holds, though rows and columns are within their limits.
#[test]
fn masks_that_no_memory_holds() {
    let (rows, cols) = (1 << 32, 1 << 20);
    let none = Error::Memory { bytes: 1 << 49 };
    assert_eq!(Mask::new(rows, cols), Err(none.clone()));
    assert_eq!(Mask::generate(rows, cols, &half()), Err(none.clone()));
    assert_eq!(none.to_string(), "562949953421312 bytes of memory could not be had");
    let rates = Rates::per_column(&vec![0.5; cols]).unwrap();
    assert_eq!(Mask::generate_with_rates(rows, cols, &rates.with_key(key())), Err(none));
    assert!(matches!(Mask::new(1 << 32, 1 << 50), Err(Error::Overflow { .. })));
}

#[test]
fn masks_without_elements_take_no_memory() {
    let big = usize::MAX;
    for (rows, cols) in [(big, 0), (0, big), (0, 0)] {
        let mut mask = Mask::new(rows, cols).unwrap();
        assert_eq!((mask.rows(), mask.cols(), mask.size_in_bytes()), (rows, cols, 0));
        mask.invert();
        assert_eq!((mask.count(), mask.to_bytes(), mask.to_bools()), (0, Ok(vec![]), Ok(vec![])));
        assert_eq!(Mask::from_bytes(rows, cols, &[]).as_ref(), Ok(&mask));
        assert_eq!(Mask::from_bools(rows, cols, &[]), Ok(mask));
    }
    for (rows, cols) in [(1 << 32, 0), (0, 1 << 39)] {
        assert_eq!(Mask::generate(rows, cols, &half()), Mask::new(rows, cols));
        let rates = if rows == 0 { Rates::per_row(&[]) } else { Rates::per_column(&[]) };
        let mask = Mask::generate_with_rates(rows, cols, &rates.unwrap().with_key(key()));
        assert_eq!(mask, Mask::new(rows, cols));
    }
}

/// A tensor without elements has a mask without elements, however many rows it has.
#[test]
fn tensors_without_elements_have_no_decisions() {
    let rows = (1 << 32) - 8;
    let empty = |shape: Result<BroadcastShape, Error>, mask: (usize, usize)| {
        let shape = shape.unwrap();
        assert_eq!((shape.len(), shape.mask_shape()), (0, mask), "{shape:?}");
        let (rows, cols) = mask;
        assert_eq!(Mask::generate(rows, cols, &half()).map(|mask| mask.size_in_bytes()), Ok(0));
    };
    empty(BroadcastShape::per_sample(&[rows, 0]), (rows, 0));
    empty(BroadcastShape::per_sample(&[0, rows]), (0, 1));
    empty(BroadcastShape::whole(&[rows, 0]), (1, 0));
    empty(BroadcastShape::whole(&[0]), (1, 0));
    empty(BroadcastShape::channels_first(&[64, rows, 0]), (64, 0));
    empty(BroadcastShape::time_steps(&[rows, 0, 5]), (rows, 0));
    empty(BroadcastShape::from_noise_shape(&[rows, 0], &[rows, 1]), (rows, 0));
}

/// Runs this test's own binary under a limit of its address space.
#[cfg(target_os = "linux")]
#[test]
fn short_memory_is_an_error() {
    const LIMIT: &str = "FUSED_DROPOUT_TEST_LIMITED";
    if std::env::var_os(LIMIT).is_some() {
        return under_a_limit();
    }
    let output = std::process::Command::new("sh")
        // KiB: 128 MiB, a little of which is the program.
        .args([
            "-c",
            "ulimit -v 131072 && exec \"$0\" --exact short_memory_is_an_error --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .envs([(LIMIT, ""), ("RAYON_NUM_THREADS", "1"), ("MALLOC_ARENA_MAX", "1")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{text}");
}

/// At most 128 MiB: each of these wants more, and nothing aborts.
#[cfg(target_os = "linux")]
fn under_a_limit() {
    let short = |error: Option<Error>, least: usize| {
        let Some(Error::Memory { bytes }) = error else { panic!("{error:?}") };
        assert!(bytes >= least, "{bytes}");
    };
    let mib = 1 << 20;
    short(Mask::new(8 * 1024, mib).err(), 1024 * mib);
    short(Mask::generate(8 * 1024, mib, &half()).err(), 1024 * mib);
    // As bytes it would be there twice, as truth values eight times.
    let mask = Mask::new(640, mib).unwrap();
    short(mask.to_bytes().err(), 80 * mib);
    short(mask.to_bools().err(), 640 * mib);
    drop(mask);
    let bytes = vec![0; 80 * mib];
    short(Mask::from_bytes(640, mib, &bytes).err(), 80 * mib);
    drop(bytes);
    // As many thresholds, and scales of half the size.
    let rates = vec![0.5; 7 * mib];
    short(Rates::per_row(&rates).err(), 28 * mib);
    short(Rates::per_column(&rates).err(), 28 * mib);
    drop(rates);

    let units = 64 * mib;
    short(KeptUnits::all(units).err(), 256 * mib);
    short(KeptUnits::bernoulli(units, &half()).err(), 256 * mib);
    short(KeptUnits::exact(units, &half()).err(), 256 * mib);
    let kept = KeptUnits::from_indices(units, &[3, 70], 2.0).unwrap();
    let mut redrawn = kept.clone();
    short(redrawn.redraw_exact(&half()).err(), 256 * mib);
    assert_eq!(redrawn, kept);
    short(redrawn.redraw_bernoulli(&half()).err(), 127 * mib);
    assert_eq!(redrawn, kept);
    // What fits is still drawn.
    let few = Dropout::new(0.999).unwrap().with_key(key());
    redrawn.redraw_bernoulli(&few).unwrap();
    assert!((60_000..75_000).contains(&redrawn.len()), "{}", redrawn.len());
}

#[test]
fn addresses_that_are_refused() {
    let says = |result: Result<Mask, Error>, message: &str| {
        assert_eq!(result.unwrap_err().to_string(), message);
    };
    let end = 1u64 << 32;
    says(
        Mask::generate(11, 4, &at(end - 6, 0)),
        "rows 4294967290 to 4294967300: masks have rows 0 to 4294967295",
    );
    says(Mask::generate(1, 4, &at(end, 0)), "row 4294967296: masks have rows 0 to 4294967295");
    says(
        Mask::generate(0, 4, &at(end + 1, 0)),
        "no rows from 4294967297 on: masks have rows 0 to 4294967295",
    );
    says(
        Mask::generate(2, 2, &at(0, u64::MAX)),
        "columns 18446744073709551615 to 18446744073709551616: masks have columns 0 to 549755813887",
    );
    let error = MaskKey::new(0, 1 << 25, 0).unwrap_err();
    assert_eq!(error.to_string(), "layer 33554432: masks have layers 0 to 33554431");
    assert_eq!(key().with_layer(1 << 25), MaskKey::new(0, 1 << 25, 0));

    let units = half().with_key(key().units());
    says(Mask::generate(2, 9, &units), "a mask of units is one row, but 2 rows were asked for");
    says(
        Mask::generate(1, 9, &units.with_key(units.key().with_origin(3, 0))),
        "a mask of units is row 0, but the key's origin is row 3",
    );
    let mut mask = Mask::new(3, 9).unwrap();
    assert_eq!(mask.fill(&units), Err(Error::UnitMask { row0: 0, rows: 3 }));
}

/// A refused selection says why, and leaves the last one as it was.
#[test]
fn selections_that_are_refused() {
    let mut kept = KeptUnits::exact(10, &half()).unwrap();
    let before = kept.clone();
    let mut refused = |exact: bool, dropout: &KeyedDropout, message: &str| {
        let (anew, redrawn) = match exact {
            true => (KeptUnits::exact(10, dropout), kept.redraw_exact(dropout)),
            false => (KeptUnits::bernoulli(10, dropout), kept.redraw_bernoulli(dropout)),
        };
        assert_eq!(redrawn.clone().unwrap_err().to_string(), message);
        assert_eq!(anew.err(), redrawn.err());
        assert_eq!(kept, before);
    };
    let whole = "an exact number of units is one of a whole layer: the key's origin must be row 0 and \
                 column 0, but it is row";
    refused(true, &at(3, 0), &format!("{whole} 3 and column 0"));
    refused(true, &at(0, 7), &format!("{whole} 0 and column 7"));
    refused(false, &at(1, 0), "a mask of units is row 0, but the key's origin is row 1");
    let columns = "columns 549755813880 to 549755813889: masks have columns 0 to 549755813887";
    refused(false, &at(0, (1 << 39) - 8), columns);
}

#[test]
fn units_have_numbers_of_32_bits() {
    if usize::BITS <= 32 {
        return;
    }
    let message = "number of units is 4294967296: it must be at most 2^32 - 1";
    let units = 1 << 32;
    for result in [
        KeptUnits::all(units),
        KeptUnits::from_indices(units, &[u32::MAX], 1.0),
        KeptUnits::bernoulli(units, &half()),
        KeptUnits::exact(units, &half()),
    ] {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
    let last = u32::MAX - 1;
    assert!(KeptUnits::from_indices(units - 1, &[last], 1.0).is_ok());
    let error = KeptUnits::from_indices(units - 1, &[u32::MAX], 1.0).unwrap_err();
    assert_eq!(error, Error::Unit { position: 0, unit: u32::MAX, units: units - 1 });
}

/// The scale and its reciprocal are normal numbers, and an error repeats the number as it was
/// written.
#[test]
fn scales_of_lists() {
    let (least, most) = (f32::MIN_POSITIVE, 1.0 / f32::MIN_POSITIVE);
    for scale in [least, 0.5, 2.0, most] {
        assert_eq!(KeptUnits::from_indices(4, &[1], scale).unwrap().scale(), scale);
    }
    for scale in [0.0, -0.1, 1e-40, least.next_down(), most.next_up(), f32::MAX, f32::INFINITY] {
        let error = KeptUnits::from_indices(4, &[1], scale).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "scale", .. }), "{error}");
    }
    for (scale, written) in [(-0.1, "-0.1"), (0.0, "0"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")]
    {
        let error = KeptUnits::from_indices(4, &[1], scale).unwrap_err().to_string();
        assert_eq!(error, format!("scale is {written}: it must be from 2^-126 to 2^126"));
    }
}

#[test]
fn rates_are_repeated_as_they_were_written() {
    for (rate, written) in [(-0.1, "-0.1"), (1.1, "1.1"), (f64::NAN, "NaN")] {
        let message = format!("rate is {written}: it must be a probability to drop, from 0 to 1");
        assert_eq!(Dropout::new(rate).unwrap_err().to_string(), message);
        assert_eq!(Rates::per_row(&[0.5, rate]).unwrap_err().to_string(), message);
    }
}

#[test]
fn keys_tell_what_they_are() {
    let key = MaskKey::new(u64::MAX, 3, 9).unwrap();
    assert_eq!((key.seed(), key.layer(), key.step()), (u64::MAX, 3, 9));
    let other = key.with_layer(4).unwrap().with_step(10).with_origin(5, 6);
    assert_eq!((other.seed(), other.layer(), other.step()), (u64::MAX, 4, 10));
    assert_eq!((other.row0(), other.col0(), other.is_units()), (5, 6, false));
    let units = other.units();
    assert!(
        units.is_units() && units.with_step(0).is_units() && units.with_origin(0, 0).is_units()
    );
    assert_eq!(MaskKey::default(), MaskKey::new(0, 0, 0).unwrap());
}

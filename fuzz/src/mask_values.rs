//! Masks as values: from and to bytes and truth values.

use arbitrary::{Result, Unstructured};
use fused_dropout::Mask;

use crate::input::size;

/// Makes a mask of bytes, and of its truth values once more.
pub fn mask_values(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    if u.ratio(1, 16)? {
        // Sizes that overflow.
        let (rows, cols) = (u.arbitrary::<usize>()?, u.arbitrary::<usize>()?);
        let _ = Mask::from_bytes(rows, cols, &[]);
        let _ = Mask::from_bools(rows, cols, &[]);
        return Ok(());
    }
    let (rows, cols) = (size(u, 30)?, size(u, 300)?);
    let len = rows * cols.div_ceil(32) * 4;
    let wrong = usize::from(u.ratio(1, 16)?);
    // Given bytes, then zeros; unused bits are mostly made 0.
    let mut bytes: Vec<u8> = u.bytes(u.len().min(len))?.to_vec();
    bytes.resize(len + wrong, 0);
    if u.is_empty() || u.ratio(7, 8)? {
        clear_unused(&mut bytes[..len], cols);
    }
    let unused = |bytes: &[u8]| {
        let mut clean = bytes.to_vec();
        clear_unused(&mut clean[..len], cols);
        clean != bytes
    };
    let mask = Mask::from_bytes(rows, cols, &bytes);
    assert_eq!(mask.is_ok(), wrong == 0 && !unused(&bytes), "{rows} x {cols}, {wrong} too many");
    let Ok(mask) = mask else { return Ok(()) };
    assert_eq!(mask.to_bytes().as_ref(), Ok(&bytes));
    let bools = mask.to_bools().expect("memory for a small mask");
    for (i, keep) in bools.iter().enumerate() {
        let (row, col) = (i / cols, i % cols);
        let byte = bytes[row * cols.div_ceil(32) * 4 + col / 8];
        assert_eq!(byte >> (col % 8) & 1 == 1, *keep, "element {i}");
        assert_eq!(mask.get(row, col), Some(*keep), "element {i}");
    }
    assert_eq!(Mask::from_bools(rows, cols, &bools).as_ref(), Ok(&mask));
    assert!(Mask::from_bools(rows, cols, &[&bools[..], &[true]].concat()).is_err());
    let mut opposite = mask.clone();
    opposite.invert();
    assert_eq!(opposite.count() + mask.count(), (rows * cols) as u64);
    assert!(opposite.to_bools().iter().flatten().zip(&bools).all(|(a, b)| a != b));
    assert_eq!(
        Mask::from_bytes(rows, cols, &opposite.to_bytes().expect("memory for a small mask"))
            .as_ref(),
        Ok(&opposite)
    );
    opposite.invert();
    assert_eq!(opposite, mask);
    Ok(())
}

/// Makes the bits 0 that belong to no column.
fn clear_unused(bytes: &mut [u8], cols: usize) {
    if cols == 0 {
        return;
    }
    for row in bytes.chunks_mut(cols.div_ceil(32) * 4) {
        for (i, byte) in row.iter_mut().enumerate() {
            let used = cols.saturating_sub(8 * i).min(8);
            *byte &= ((1u16 << used) - 1) as u8;
        }
    }
}

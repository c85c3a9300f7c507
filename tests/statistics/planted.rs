//! The test of the test: masks with a defect planted in them are rejected, and by the statistic
//! that is there for it.

use crate::battery::{BATTERY, NEIGHBOURS, Statistic, battery, neighbours};
use crate::bits::Bits;
use crate::{ALPHA, RATES, SOUND, Tally, elements, keep_of};
use fused_dropout::{Dropout, MaskKey, Result};

/// The last word of a row holds 8 columns.
const ROWS: usize = 4096;
const COLS: usize = 1000;

fn sound(dropout: &Dropout, seed: u64) -> Result<Bits> {
    elements(ROWS, COLS, dropout, &MaskKey::new(seed, 1, 2)?)
}

/// Without a defect, these masks are accepted: what is caught below is the defect.
#[test]
fn sound_masks_are_accepted() -> Result<()> {
    let mut tally = Tally::new();
    for rate in RATES {
        let dropout = Dropout::new(rate)?;
        let (first, second) = (sound(&dropout, 11)?, sound(&dropout, 12)?);
        let keep = keep_of(&dropout);
        tally.add(&format!("alone, rate {rate}"), &battery(&first, keep));
        tally.add(&format!("a pair, rate {rate}"), &neighbours(&first, &second, keep));
    }
    tally.accept(SOUND * (BATTERY + NEIGHBOURS));
    Ok(())
}

/// `expected` is among the statistics that reject. Run with `--nocapture` to see them.
fn assert_caught(defect: &str, rate: f64, expected: &str, found: &[Statistic]) {
    let caught: Vec<&str> =
        found.iter().filter(|found| found.p < ALPHA).map(|found| &*found.name).collect();
    let (shown, more) = caught.split_at(caught.len().min(8));
    println!("{defect}, rate {rate}: {}; {} more", shown.join("; "), more.len());
    assert!(caught.contains(&expected), "{defect}, rate {rate}: not seen by {expected}");
}

/// A mask with the defect is caught at every rate.
fn check(defect: &str, expected: &str, plant: impl Fn(&mut Bits)) -> Result<()> {
    for rate in RATES {
        let dropout = Dropout::new(rate)?;
        let mut bits = sound(&dropout, 11)?;
        plant(&mut bits);
        assert_caught(defect, rate, expected, &battery(&bits, keep_of(&dropout)));
    }
    Ok(())
}

#[test]
fn one_row_repeated() -> Result<()> {
    check("one row repeated far away", "equal rows", |bits| {
        let row = bits.row(700).to_vec();
        bits.row_mut(3000).copy_from_slice(&row);
    })?;
    check("one row repeated next to it", "worst pair of adjacent rows", |bits| {
        let row = bits.row(700).to_vec();
        bits.row_mut(701).copy_from_slice(&row);
    })
}

#[test]
fn every_eighth_row_repeated() -> Result<()> {
    check("every eighth row repeated", "lag 1000, even", |bits| {
        for row in (0..ROWS - 1).step_by(8) {
            let source = bits.row(row).to_vec();
            bits.row_mut(row + 1).copy_from_slice(&source);
        }
    })
}

#[test]
fn groups_of_four_alike() -> Result<()> {
    check("every group of four alike", "aligned 4-tuples", |bits| {
        for row in 0..ROWS {
            for word in bits.row_mut(row) {
                let first = *word & 0x1111_1111;
                *word = first | first << 1 | first << 2 | first << 3;
            }
        }
    })
}

#[test]
fn one_group_of_four_alike_in_a_row() -> Result<()> {
    check("one group of four alike in each row", "worst pair of edge columns", |bits| {
        for row in 0..ROWS {
            let word = &mut bits.row_mut(row)[0];
            let first = *word & 1;
            *word = *word & !0xf | (first * 0xf);
        }
    })
}

#[test]
fn a_tail_that_reuses_a_word() -> Result<()> {
    for (what, expected, source) in [
        ("the first", "worst pair of edge columns", 0),
        ("the first", "worst pair of edge words", 0),
        ("the previous", "worst pair of edge words", COLS / 32 - 1),
    ] {
        check(&format!("the last word is {what} one"), expected, |bits| {
            let valid = bits.last_valid();
            for row in 0..ROWS {
                let row = bits.row_mut(row);
                row[COLS / 32] = row[source] & valid;
            }
        })?;
    }
    Ok(())
}

#[test]
fn a_constant_column() -> Result<()> {
    for bit in [false, true] {
        check(&format!("a column of {bit}"), "worst column", |bits| {
            for row in 0..ROWS {
                bits.set(row, 417, bit);
            }
        })?;
    }
    Ok(())
}

#[test]
fn a_place_in_every_block_too_often_kept() -> Result<()> {
    check("column 37 of every block kept a little too often", "worst column modulo 128", |bits| {
        for row in (0..ROWS).step_by(8) {
            for col in (37..COLS).step_by(128) {
                bits.set(row, col, true);
            }
        }
    })
}

#[test]
fn words_never_drawn() -> Result<()> {
    check("eight words in a row left at zero now and then", "worst block of 256", |bits| {
        for row in (0..ROWS).step_by(256) {
            bits.row_mut(row)[8..16].fill(0);
        }
    })?;
    check("some rows left at zero", "worst row", |bits| {
        for row in (0..ROWS).step_by(512) {
            bits.row_mut(row).fill(0);
        }
    })
}

/// Rows that share a bias: kept a little more in one half of the matrix, less in the other.
#[test]
fn rows_of_unequal_rates() -> Result<()> {
    for rate in RATES {
        let dropout = Dropout::new(rate)?;
        let (less, more) = (Dropout::new(rate - 0.02)?, Dropout::new(rate + 0.02)?);
        let (mut bits, other) = (sound(&less, 11)?, sound(&more, 11)?);
        for row in (0..ROWS).step_by(2) {
            bits.row_mut(row).copy_from_slice(other.row(row));
        }
        let found = battery(&bits, keep_of(&dropout));
        assert_caught("rows of unequal rates", rate, "row sums", &found);
    }
    Ok(())
}

/// A period that no row or word shows: the stream repeats its bits 40 later now and then.
#[test]
fn a_short_period() -> Result<()> {
    check("the bits 40 before, in every eighth row", "lag 40, odd", |bits| {
        for row in (0..ROWS).step_by(8) {
            for col in 40..COLS {
                bits.set(row, col, bits.get(row, col - 40));
            }
        }
    })
}

/// Ones that cling together: the frequencies stay right, the runs get longer.
#[test]
fn runs_too_long() -> Result<()> {
    check("each odd row sorted in its bytes", "runs of ones", |bits| {
        for row in (1..ROWS).step_by(2) {
            for word in bits.row_mut(row) {
                let bytes = word.to_le_bytes();
                let sorted = bytes.map(|byte| ((1_u32 << byte.count_ones()) - 1) as u8);
                *word = u32::from_le_bytes(sorted);
            }
        }
    })
}

/// A rate rounded to a multiple of 1/256. Some rates are multiples of it; the other ones show.
#[test]
fn a_threshold_of_eight_bits() -> Result<()> {
    for rate in [0.2, 0.1, 0.37] {
        let (dropout, rounded) =
            (Dropout::new(rate)?, Dropout::new((rate * 256.0).round() / 256.0)?);
        let (rows, cols) = (65_536, 1024);
        let bits = elements(rows, cols, &rounded, &MaskKey::new(11, 1, 2)?)?;
        let found = battery(&bits, keep_of(&dropout));
        assert_caught("a threshold of eight bits", rate, "keep rate", &found);
    }
    Ok(())
}

/// A pair of masks with the defect is caught at every rate.
fn check_pair(defect: &str, expected: &str, plant: impl Fn(&Bits, &mut Bits)) -> Result<()> {
    for rate in RATES {
        let dropout = Dropout::new(rate)?;
        let (first, mut second) = (sound(&dropout, 11)?, sound(&dropout, 12)?);
        let keep = keep_of(&dropout);
        plant(&first, &mut second);
        assert_caught(defect, rate, expected, &neighbours(&first, &second, keep));
    }
    Ok(())
}

#[test]
fn the_next_seed_shifted_by_a_row() -> Result<()> {
    for expected in ["lag -1000", "row in common"] {
        check_pair("the next seed is this one shifted by a row", expected, |first, second| {
            for row in 1..ROWS {
                second.row_mut(row - 1).copy_from_slice(first.row(row));
            }
        })?;
    }
    Ok(())
}

#[test]
fn the_next_seed_the_same_in_places() -> Result<()> {
    check_pair(
        "one word of each row has the same bits under both keys",
        "lag 0",
        |first, second| {
            for row in 0..ROWS {
                second.row_mut(row)[5] = first.row(row)[5];
            }
        },
    )?;
    let same_column = "difference: worst column";
    check_pair("one column is the same under both keys", same_column, |first, second| {
        for row in 0..ROWS {
            second.set(row, 700, first.get(row, 700));
        }
    })?;
    check_pair("the next seed is this one 33 bits later", "lag 33", |first, second| {
        for row in 0..ROWS {
            for col in 0..COLS - 33 {
                second.set(row, col + 33, first.get(row, col));
            }
        }
    })
}

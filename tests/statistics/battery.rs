//! The statistics: each looks at bits that should be independent, each 1 with the same probability,
//! and says how improbable what it sees would then be.

use crate::bits::{Bits, Stream, low_bits, ones, ones_of};
use crate::tail::{
    any_of, binomial, binomial_histogram, independent_pair, multinomial, worst_binomial,
};
use std::collections::HashSet;

/// What one statistic found: the probability of bits at least as strange, or a bound above it.
pub(crate) struct Statistic {
    pub(crate) name: String,
    pub(crate) p: f64,
}

fn statistic(name: impl Into<String>, p: f64) -> Statistic {
    Statistic { name: name.into(), p }
}

/// Longest short lag.
const LAGS: usize = 64;
/// Columns, and words, from either end of a row that are compared pair by pair.
const EDGE: usize = 16;
/// Number of statistics `battery` returns.
pub(crate) const BATTERY: usize = 16 + 2 * (LAGS + 3);
/// Number of statistics `neighbours` returns.
pub(crate) const NEIGHBOURS: usize = 1 + 2 * (LAGS + 3) + 1 + BATTERY;

/// All statistics of one matrix whose bits are 1 with probability `keep`.
pub(crate) fn battery(bits: &Bits, keep: f64) -> Vec<Statistic> {
    let (rows, cols) = (bits.rows as u64, bits.cols as u64);
    let stream = bits.stream();
    let row_sums = bits.row_sums();
    let column_sums = bits.column_sums();
    let blocks: Vec<u64> = stream.words[..stream.len / 256 * 4]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|block| ones(block.iter().copied()))
        .collect();
    let [nibbles, bytes] = tuples(bits, keep);
    let [runs_of_ones, runs_of_zeros] = runs(&stream, keep);
    let mut found = vec![
        statistic("keep rate", binomial(stream.ones, rows * cols, keep)),
        statistic("blocks of 256", binomial_histogram(&blocks, 256, keep)),
        statistic("worst block of 256", worst_binomial(&blocks, 256, keep)),
        statistic("aligned 4-tuples", nibbles),
        statistic("aligned 8-tuples", bytes),
        statistic("runs of ones", runs_of_ones),
        statistic("runs of zeros", runs_of_zeros),
        statistic("row sums", binomial_histogram(&row_sums, cols, keep)),
        statistic("worst row", worst_binomial(&row_sums, cols, keep)),
        statistic("column sums", binomial_histogram(&column_sums, rows, keep)),
        statistic("worst column", worst_binomial(&column_sums, rows, keep)),
        statistic("worst column modulo 128", worst_residue(&column_sums, rows, keep)),
        statistic("worst pair of edge columns", edge_columns(bits, keep)),
        statistic("worst pair of edge words", edge_words(bits, keep)),
        statistic("equal rows", equal_rows(bits, keep)),
        statistic("worst pair of adjacent rows", adjacent_rows(bits, keep)),
    ];
    for lag in (1..=LAGS).chain([bits.cols - 1, bits.cols, bits.cols + 1]) {
        let [even, odd] = lagged(&stream, lag, keep);
        found.push(statistic(format!("lag {lag}, even"), even));
        found.push(statistic(format!("lag {lag}, odd"), odd));
    }
    assert_eq!(found.len(), BATTERY);
    found
}

/// All statistics of two matrices of one shape that should have nothing in common, among them the
/// whole battery on where they differ.
pub(crate) fn neighbours(a: &Bits, b: &Bits, keep: f64) -> Vec<Statistic> {
    let (first, second) = (a.stream(), b.stream());
    let ahead = || (1..=LAGS).chain([a.cols - 1, a.cols, a.cols + 1]);
    let mut found = vec![
        statistic("lag 0", crossed(&first, &second, 0, keep)),
        statistic("row in common", common_row(a, b, keep)),
    ];
    found.extend(
        ahead().map(|lag| statistic(format!("lag {lag}"), crossed(&first, &second, lag, keep))),
    );
    found.extend(
        ahead().map(|lag| statistic(format!("lag -{lag}"), crossed(&second, &first, lag, keep))),
    );
    found.extend(
        battery(&a.xor(b), 2.0 * keep * (1.0 - keep))
            .into_iter()
            .map(|difference| statistic(format!("difference: {}", difference.name), difference.p)),
    );
    assert_eq!(found.len(), NEIGHBOURS);
    found
}

/// Frequencies of all patterns of four, and of eight, columns that start at a multiple of as many.
fn tuples(bits: &Bits, keep: f64) -> [f64; 2] {
    let mut bytes = [0_u64; 256];
    for row in 0..bits.rows {
        let row = bits.row(row);
        for byte in row.iter().flat_map(|word| word.to_le_bytes()).take(bits.cols / 8) {
            bytes[usize::from(byte)] += 1;
        }
    }
    let mut nibbles = [0_u64; 16];
    for (byte, count) in bytes.iter().enumerate() {
        nibbles[byte % 16] += count;
        nibbles[byte / 16] += count;
    }
    [(4, &nibbles[..]), (8, &bytes[..])].map(|(width, counts)| {
        let cells: Vec<_> = counts
            .iter()
            .enumerate()
            .map(|(pattern, &count)| {
                let ones = pattern.count_ones() as i32;
                (count, keep.powi(ones) * (1.0 - keep).powi(width - ones))
            })
            .collect();
        multinomial(&cells)
    })
}

/// Lengths of the runs of ones and of the runs of zeros.
///
/// Lengths are independent and geometric, but how many runs there are is random too. So a fixed
/// number is looked at, the first ones: as many as expected less 10 · sqrt(n), which is 30 standard
/// deviations. A stream with fewer has the p-value 0.
fn runs(stream: &Stream, keep: f64) -> [f64; 2] {
    let expected = stream.len as f64 * keep * (1.0 - keep) - 10.0 * (stream.len as f64).sqrt();
    let wanted = expected.max(0.0) as u64;
    let mut lengths = [[0_u64; 64]; 2];
    let mut seen = [0; 2];
    let (mut bit, mut length) = (stream.words[0] & 1, 0);
    for (i, &word) in stream.words[..stream.len / 64].iter().enumerate() {
        let (mut word, mut left) = (word, 64);
        loop {
            let same = (word ^ bit.wrapping_neg()).trailing_zeros().min(left);
            length += same as usize;
            left -= same;
            if left == 0 {
                break;
            }
            word >>= same;
            let kind = bit as usize;
            if seen[kind] < wanted {
                seen[kind] += 1;
                lengths[kind][length.min(64) - 1] += 1;
            }
            (bit, length) = (1 - bit, 0);
        }
        if i % 1024 == 0 && seen == [wanted; 2] {
            break;
        }
    }
    [(1, keep), (0, 1.0 - keep)].map(|(kind, go_on)| {
        if seen[kind] < wanted {
            return 0.0;
        }
        // Lengths of 1, 2, ... up to the first that fewer than 64 runs should exceed.
        let mut cells = Vec::new();
        let mut longer = 1.0;
        for &count in &lengths[kind][..63] {
            cells.push((count, longer * (1.0 - go_on)));
            longer *= go_on;
            if longer * (wanted as f64) < 64.0 {
                break;
            }
        }
        cells.push((lengths[kind][cells.len()..].iter().sum(), longer));
        multinomial(&cells)
    })
}

/// Column sums gathered by the column's position in a block of 128, the unit of the generator.
fn worst_residue(column_sums: &[u64], rows: u64, keep: f64) -> f64 {
    let residues = column_sums.len().min(128);
    let worst = (0..residues).map(|residue| {
        let sums = column_sums.iter().skip(residue).step_by(128);
        binomial(sums.clone().sum(), sums.count() as u64 * rows, keep)
    });
    any_of(residues, worst.fold(1.0, f64::min))
}

/// All pairs of the first and last columns.
fn edge_columns(bits: &Bits, keep: f64) -> f64 {
    let columns: Vec<_> = edges(bits.cols).map(|col| bits.column(col)).collect();
    let sums: Vec<_> = columns.iter().map(|column| ones_of(column)).collect();
    worst_pair(columns.len(), |a, b| {
        let both = ones_in_common(&columns[a], &columns[b]);
        independent_pair(bits.rows as u64, both, sums[a], sums[b], keep)
    })
}

/// All pairs of the first and last words of a row, bit against bit in the same place.
fn edge_words(bits: &Bits, keep: f64) -> f64 {
    let places: Vec<_> = edges(bits.stride()).collect();
    let words: Vec<Vec<u32>> = places
        .iter()
        .map(|&place| (0..bits.rows).map(|row| bits.row(row)[place]).collect())
        .collect();
    // A last word that is not full is compared in the bits it has.
    let valid = bits.last_valid();
    let in_last: Vec<u64> =
        words.iter().map(|words| ones(words.iter().map(|word| u64::from(word & valid)))).collect();
    let sums: Vec<_> = words.iter().map(|words| ones_of(words)).collect();
    worst_pair(places.len(), |a, b| {
        let both = ones_in_common(&words[a], &words[b]);
        let (sums, width) = if places[b] + 1 == bits.stride() {
            (&in_last, valid.count_ones())
        } else {
            (&sums, 32)
        };
        independent_pair(bits.rows as u64 * u64::from(width), both, sums[a], sums[b], keep)
    })
}

/// The first and last `EDGE` of `count` places, in order, none twice.
fn edges(count: usize) -> impl Iterator<Item = usize> {
    (0..count).filter(move |place| *place < EDGE || place + EDGE >= count)
}

fn ones_in_common(a: &[u32], b: &[u32]) -> u64 {
    ones(a.iter().zip(b).map(|(a, b)| u64::from(a & b)))
}

/// The smallest p-value of all pairs (a, b), a < b, of `count` things.
fn worst_pair(count: usize, p: impl Fn(usize, usize) -> f64) -> f64 {
    let pairs = (0..count).flat_map(|b| (0..b).map(move |a| (a, b)));
    any_of(count * count.saturating_sub(1) / 2, pairs.map(|(a, b)| p(a, b)).fold(1.0, f64::min))
}

/// Probability that two independent rows are equal.
fn equal_by_chance(cols: usize, keep: f64) -> f64 {
    (keep * keep + (1.0 - keep) * (1.0 - keep)).powf(cols as f64)
}

/// Two rows that are equal, wherever they are: at most as probable as their expected number.
fn equal_rows(bits: &Bits, keep: f64) -> f64 {
    let mut seen = HashSet::new();
    if (0..bits.rows).all(|row| seen.insert(bits.row(row))) {
        return 1.0;
    }
    any_of(bits.rows * (bits.rows - 1) / 2, equal_by_chance(bits.cols, keep))
}

/// A row of one matrix that is also a row of the other.
fn common_row(a: &Bits, b: &Bits, keep: f64) -> f64 {
    let rows: HashSet<_> = (0..a.rows).map(|row| a.row(row)).collect();
    if (0..b.rows).all(|row| !rows.contains(b.row(row))) {
        return 1.0;
    }
    any_of(a.rows * b.rows, equal_by_chance(a.cols, keep))
}

/// Number of columns in which a row differs from the next one.
fn adjacent_rows(bits: &Bits, keep: f64) -> f64 {
    let differences: Vec<u64> = (1..bits.rows)
        .map(|row| {
            let pairs = bits.row(row - 1).iter().zip(bits.row(row));
            ones(pairs.map(|(a, b)| u64::from(a ^ b)))
        })
        .collect();
    worst_binomial(&differences, bits.cols as u64, 2.0 * keep * (1.0 - keep))
}

/// Pairs of bits `lag` apart in one stream.
///
/// All such pairs overlap each other, and are not independent. But cut the stream into blocks as
/// long as the lag: pairs that start in even blocks do not overlap, nor do those that start in odd
/// blocks. So there are two p-values, one for each.
fn lagged(stream: &Stream, lag: usize, keep: f64) -> [f64; 2] {
    let blocks = stream.len / (2 * lag) * 2;
    if blocks == 0 {
        return [1.0; 2];
    }
    let used = blocks * lag;
    let starts = used - lag;
    let pattern = even_blocks(lag, starts.div_ceil(64));
    let (mut both_even, mut both, mut even) = (0_u64, 0_u64, 0_u64);
    // Wrapping sums, which cannot wrap: checked ones are not vectorised.
    let mut count = |first: u64, second: u64, even_mask: u64| {
        let pair = first & second;
        both_even = both_even.wrapping_add(u64::from((pair & even_mask).count_ones()));
        both = both.wrapping_add(u64::from(pair.count_ones()));
        even = even.wrapping_add(u64::from((first & even_mask).count_ones()));
    };
    let whole = starts / 64;
    for from in (0..whole).step_by(pattern.len()) {
        let first = stream.words[from..whole].iter().zip(&pattern);
        for ((&first, &even_mask), second) in first.zip(stream.words_from(64 * from + lag)) {
            count(first, second, even_mask);
        }
    }
    // No bits, unless the starts end inside a word.
    let rest = stream.words[whole] & low_bits(starts % 64);
    count(rest, stream.at(64 * whole + lag), pattern[whole % pattern.len()]);

    let odd = stream.ones - stream.ones_in(used, stream.len - used) - even;
    let (blocks, size) = (blocks as u64, lag as u64);
    let evens = independent_pair(blocks / 2 * size, both_even, even, odd, keep);
    if blocks == 2 {
        return [evens, 1.0];
    }
    // Pairs from odd blocks leave out the first block of the stream and the last.
    let first = odd - stream.ones_in(starts, lag);
    let second = even - stream.ones_in(0, lag);
    let odds = independent_pair((blocks / 2 - 1) * size, both - both_even, first, second, keep);
    [evens, odds]
}

/// Words in which the bits of even blocks of `lag` bits are set, until the pattern repeats or
/// `enough` words are there; several times the pattern if it is short.
fn even_blocks(lag: usize, enough: usize) -> Vec<u64> {
    let period = lag >> lag.trailing_zeros().min(5);
    let len = (period * 256_usize.div_ceil(period)).min(enough);
    let is_even = |bit: usize| u64::from((bit / lag).is_multiple_of(2));
    (0..len).map(|i| (0..64).map(|bit| is_even(64 * i + bit) << bit).sum()).collect()
}

/// Pairs of a bit of one stream and the bit `lag` later of another; these never overlap.
fn crossed(first: &Stream, second: &Stream, lag: usize, keep: f64) -> f64 {
    let pairs = first.len.saturating_sub(lag);
    if pairs == 0 {
        return 1.0;
    }
    let whole = pairs / 64;
    let words = first.words[..whole].iter().zip(second.words_from(lag));
    let both = ones(words.map(|(first, second)| first & second));
    let rest = first.words[whole] & second.at(64 * whole + lag) & low_bits(pairs % 64);
    independent_pair(
        pairs as u64,
        both + u64::from(rest.count_ones()),
        first.ones - first.ones_in(pairs, lag),
        second.ones - second.ones_in(0, lag),
        keep,
    )
}

//! Upper bounds on tail probabilities that hold for every sample size.
//!
//! The usual normal and chi-square tails are limits, good near the middle; at the levels used here,
//! below 1e-12, they are wrong by orders of magnitude as soon as a cell expects few counts. So the
//! p-values come from inequalities instead, and the false-alarm rate of the battery is a theorem.
//! With o the observed and e the expected counts of n independent draws in k cells, and
//!
//! ```text
//! D = sum over the cells of o · ln(o / e)
//! ```
//!
//! (n times the relative entropy, half the likelihood-ratio statistic),
//!
//! ```text
//! k = 2:  P(D >= x) <= 2 · exp(-x)                            Chernoff, both sides
//! k > 2:  P(D >= x) <= exp(-x) · (e · x / (k - 1))^(k - 1)    for x > k - 1
//! ```
//!
//! the second from Agrawal, "Finite-sample concentration of the multinomial in relative entropy",
//! IEEE Transactions on Information Theory, 2020. What they give away is small: a deviation must be
//! about 7.8 standard deviations instead of 7.4 to count at 1e-13.

/// P-value of the observed counts of `cells`, each with the probability it should have.
pub(crate) fn multinomial(cells: &[(u64, f64)]) -> f64 {
    let draws = cells.iter().map(|cell| cell.0).sum::<u64>() as f64;
    let mut divergence = 0.0;
    for &(count, probability) in cells {
        let count = count as f64;
        if count > 0.0 {
            divergence += count * (count / (draws * probability)).ln();
        }
    }
    let freedom = cells.len() as f64 - 1.0;
    if cells.len() == 2 {
        (2.0 * (-divergence).exp()).min(1.0)
    } else if freedom > 0.0 && divergence > freedom {
        (freedom - divergence + freedom * (divergence / freedom).ln()).exp()
    } else {
        1.0
    }
}

/// P-value of `ones` successes among `draws` of probability `keep`.
pub(crate) fn binomial(ones: u64, draws: u64, keep: f64) -> f64 {
    multinomial(&[(ones, keep), (draws - ones, 1.0 - keep)])
}

/// P-value of the most extreme of several counts, each of `draws` draws.
pub(crate) fn worst_binomial(counts: &[u64], draws: u64, keep: f64) -> f64 {
    let extremes = counts.iter().min().into_iter().chain(counts.iter().max());
    let worst = extremes.map(|&ones| binomial(ones, draws, keep)).fold(1.0, f64::min);
    any_of(counts.len(), worst)
}

/// P-value of the smallest of `looks` p-values (Bonferroni).
pub(crate) fn any_of(looks: usize, smallest: f64) -> f64 {
    (looks.max(1) as f64 * smallest).min(1.0)
}

/// P-value of several independent counts of `draws` draws each, as a histogram against the binomial
/// distribution. Neighbouring values share a cell until it holds at least 1/32 of the probability:
/// many cells make the bound blunt, and what lies far out is seen by `worst_binomial`.
pub(crate) fn binomial_histogram(counts: &[u64], draws: u64, keep: f64) -> f64 {
    let mut cells = vec![(0, 0.0)];
    let mut cell_of = Vec::new();
    let distribution = binomial_distribution(draws, keep);
    let mut left = 1.0;
    for probability in distribution {
        let open = cells.len() - 1;
        if cells[open].1 >= 1.0 / 32.0 && left >= 1.0 / 32.0 {
            cells.push((0, 0.0));
        }
        let open = cells.len() - 1;
        cells[open].1 += probability;
        left -= probability;
        cell_of.push(open);
    }
    for &count in counts {
        cells[cell_of[count as usize]].0 += 1;
    }
    multinomial(&cells)
}

/// Probability of 0, 1, ... `draws` successes, by the ratio of neighbours from the mode outwards,
/// where nothing overflows, then divided by the sum.
fn binomial_distribution(draws: u64, keep: f64) -> Vec<f64> {
    let mode = (draws as f64 * keep) as usize;
    let odds = keep / (1.0 - keep);
    let mut weights = vec![0.0; draws as usize + 1];
    weights[mode] = 1.0;
    for ones in mode..draws as usize {
        weights[ones + 1] =
            weights[ones] * odds * (draws as usize - ones) as f64 / (ones + 1) as f64;
    }
    for ones in (0..mode).rev() {
        weights[ones] =
            weights[ones + 1] / odds * (ones + 1) as f64 / (draws as usize - ones) as f64;
    }
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Counts of a pair of bits in `draws` pairs that do not overlap, `both` of them (1, 1), `first`
/// with a first and `second` with a second bit of 1, against two independent bits.
pub(crate) fn independent_pair(draws: u64, both: u64, first: u64, second: u64, keep: f64) -> f64 {
    let drop = 1.0 - keep;
    multinomial(&[
        (draws + both - first - second, drop * drop),
        (second - both, drop * keep),
        (first - both, keep * drop),
        (both, keep * keep),
    ])
}

/// Every outcome of a small experiment, with its exact probability: the p-values must be bounds.
#[test]
fn tails_are_bounds() {
    for keep in [0.5, 0.8, 0.97] {
        let exact = binomial_distribution(40, keep);
        assert!((exact[40] - f64::powi(keep, 40)).abs() < 1e-14);
        for bar in 0..=40 {
            let bar = binomial(bar, 40, keep);
            let mass: f64 = (0..=40)
                .filter(|&ones| binomial(ones, 40, keep) <= bar)
                .map(|ones| exact[ones as usize])
                .sum();
            assert!(mass <= bar * (1.0 + 1e-9), "{mass} of at most {bar}");
        }
        // Three cells: a, b and the rest of 24 draws, as a binomial of a binomial.
        let others = [0.3 * (1.0 - keep), 0.7 * (1.0 - keep)];
        let mut outcomes = Vec::new();
        for (a, &first) in binomial_distribution(24, keep).iter().enumerate() {
            let rest = 24 - a;
            for (b, &second) in binomial_distribution(rest as u64, 0.3).iter().enumerate() {
                let cells = [(a, keep), (b, others[0]), (rest - b, others[1])];
                outcomes.push((multinomial(&cells.map(|(n, p)| (n as u64, p))), first * second));
            }
        }
        for &(bar, _) in &outcomes {
            let mass: f64 =
                outcomes.iter().filter(|other| other.0 <= bar).map(|other| other.1).sum();
            assert!(mass <= bar * (1.0 + 1e-9), "{mass} of at most {bar}");
        }
    }
}

/// The bounds are not empty promises either: they fall to 1e-13 within eight standard deviations.
#[test]
fn tails_are_sharp() {
    let draws = 1 << 26;
    let deviation = |z: f64| (draws as f64 / 2.0 + z * (draws as f64 / 4.0).sqrt()) as u64;
    assert!(binomial(deviation(7.3), draws, 0.5) > 1e-13);
    assert!(binomial(deviation(8.0), draws, 0.5) < 1e-13);
}

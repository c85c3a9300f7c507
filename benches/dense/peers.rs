//! The products that ours is compared with.

use std::time::Duration;

use super::Case;

/// Somebody else's product.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) run: fn(&Case, &mut [f32]),
    /// How long its threads are in the way of others after a call.
    pub(super) settle: Duration,
}

/// The peers that can use this number of threads.
pub(super) fn peers(threads: usize) -> Vec<Peer> {
    let settle = Duration::ZERO;
    let mut peers = vec![
        Peer { name: "gemm", run: run_gemm, settle },
        Peer { name: "faer", run: run_faer, settle },
    ];
    if threads == 1 {
        peers.push(Peer { name: "matrixmultiply", run: run_matrixmultiply, settle });
    }
    #[cfg(feature = "openblas")]
    peers.push(openblas::peer(threads));
    peers
}

fn run_gemm(case: &Case, y: &mut [f32]) {
    let (m, k, n) = case.shape;
    let threads = rayon::current_num_threads();
    let parallelism =
        if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    let (rows, inner) = (n as isize, k as isize);
    assert!(y.len() >= m * n && case.x.len() >= m * k && case.w.len() >= k * n);
    // SAFETY: the slices hold m x n, m x k and k x n elements, row after row, as the strides say.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            rows,
            false,
            case.x.as_ptr(),
            1,
            inner,
            case.w.as_ptr(),
            1,
            rows,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn run_faer(case: &Case, y: &mut [f32]) {
    let (m, k, n) = case.shape;
    let threads = rayon::current_num_threads();
    let parallelism = if threads == 1 { faer::Par::Seq } else { faer::Par::rayon(threads) };
    let (x, w) = (&case.x[..m * k], &case.w[..k * n]);
    faer::linalg::matmul::matmul(
        faer::MatMut::from_row_major_slice_mut(&mut y[..m * n], m, n),
        faer::Accum::Replace,
        faer::MatRef::from_row_major_slice(x, m, k),
        faer::MatRef::from_row_major_slice(w, k, n),
        1.0,
        parallelism,
    );
}

fn run_matrixmultiply(case: &Case, y: &mut [f32]) {
    let (m, k, n) = case.shape;
    super::support::plain::product((m, k, n), (&case.x, k, 1), (&case.w, n, 1), y);
}

#[cfg(feature = "openblas")]
mod openblas {
    //! The system's OpenBLAS.

    use std::ffi::c_int;
    use std::time::Duration;

    #[link(name = "openblas")]
    unsafe extern "C" {
        fn openblas_set_num_threads(threads: c_int);
        fn cblas_sgemm(
            order: c_int,
            transpose_a: c_int,
            transpose_b: c_int,
            m: c_int,
            n: c_int,
            k: c_int,
            alpha: f32,
            a: *const f32,
            lda: c_int,
            b: *const f32,
            ldb: c_int,
            beta: f32,
            c: *mut f32,
            ldc: c_int,
        );
    }

    /// Its second thread spins for 2^26 ticks of the clock after a call: the pause lets them pass.
    pub(super) fn peer(threads: usize) -> super::Peer {
        // SAFETY: sets a number; no product runs.
        unsafe { openblas_set_num_threads(threads as c_int) };
        let settle = Duration::from_millis(if threads == 1 { 0 } else { 50 });
        super::Peer { name: "OpenBLAS", run, settle }
    }

    fn run(case: &super::Case, y: &mut [f32]) {
        const ROW_MAJOR: c_int = 101;
        const NO_TRANSPOSE: c_int = 111;
        let (m, k, n) = case.shape;
        assert!(y.len() >= m * n && case.x.len() >= m * k && case.w.len() >= k * n);
        let (a, b) = (case.x.as_ptr(), case.w.as_ptr());
        let [m, k, n] = [m, k, n].map(|size| size as c_int);
        // SAFETY: the slices hold m x k, k x n and m x n elements, row after row, and the sizes of
        // the benches fit an int.
        unsafe {
            let (order, plain) = (ROW_MAJOR, NO_TRANSPOSE);
            cblas_sgemm(order, plain, plain, m, n, k, 1.0, a, k, b, n, 0.0, y.as_mut_ptr(), n);
        }
    }
}

use fused_dropout::*;
use std::time::Instant;
fn best(mut f: impl FnMut(), min: f64) -> f64 { let mut b = f64::MAX; let s = Instant::now(); let mut i = 0; while i < 5 || s.elapsed().as_secs_f64() < min { let t = Instant::now(); f(); b = b.min(t.elapsed().as_secs_f64()); i += 1; } b }
#[cfg(target_arch="x86_64")]
#[target_feature(enable = "avx2,fma")]
fn peak2(n: usize) -> f32 { use std::arch::x86_64::*; let mut a = [_mm256_set1_ps(0.5); 12]; let x = _mm256_set1_ps(0.999); let y = _mm256_set1_ps(0.001); for _ in 0..n { for v in &mut a { *v = _mm256_fmadd_ps(*v, x, y); } } let mut s = 0.0; for v in a { s += _mm256_cvtss_f32(v) } s }
#[cfg(target_arch="x86_64")]
#[target_feature(enable = "avx512f")]
fn peak5(n: usize) -> f32 { use std::arch::x86_64::*; let mut a = [_mm512_set1_ps(0.5); 24]; let x = _mm512_set1_ps(0.999); let y = _mm512_set1_ps(0.001); for _ in 0..n { for v in &mut a { *v = _mm512_fmadd_ps(*v, x, y); } } let mut s = 0.0; for v in a { s += _mm512_cvtss_f32(v) } s }
fn main() {
    let threads: usize = std::env::args().nth(1).map_or(1, |s| s.parse().unwrap());
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    let shapes = [(512, 2048, 2048), (1024, 1024, 1024), (2048, 768, 3072), (256, 1024, 1024), (100, 784, 800), (128, 784, 1024), (64, 1024, 1024), (128, 4096, 4096), (32, 9216, 4096), (7, 33, 65), (1, 1024, 1024)];
    for level in [Level::Avx2, Level::Avx512] {
        let p = if level == Level::Avx2 { 12e5 * 16.0 / best(|| { std::hint::black_box(unsafe { peak2(100000) }); }, 0.2) } else { 24e5 * 32.0 / best(|| { std::hint::black_box(unsafe { peak5(100000) }); }, 0.2) };
        println!("{level} peak {:.1} GFLOP/s", p / 1e9);
        for (m, k, n) in shapes {
            let x = vec![0.5f32; m * k]; let w = vec![0.25f32; k * n]; let b = vec![0.1f32; n]; let mut y = vec![0f32; m * n];
            let flops = 2.0 * (m * n * k) as f64;
            let xr = MatRef::new(&x, m, k).unwrap(); let wr = MatRef::new(&w, k, n).unwrap();
            let bare = DenseArgs::new(xr, wr);
            let run = |args: &DenseArgs, y: &mut [f32]| level.install(|| dense_forward(args, MatMut::new(y, m, n).unwrap(), None, None).unwrap()).unwrap();
            let t0 = best(|| run(&bare, &mut y), 0.3);
            let mut row = String::new();
            for (act, p) in [(Activation::Relu, 0.5), (Activation::Relu, 0.1), (Activation::Gelu, 0.5)] {
                let args = DenseArgs { bias: Some(&b), activation: act, dropout: Dropout::new(p).unwrap(), key: MaskKey::new(1, 2, 3).unwrap(), ..bare };
                let t = best(|| run(&args, &mut y), 0.3);
                row += &format!("  {:5.1}% x{:.3}", flops / t / p_of(p, 1.0) * 100.0 / peak(level, threads) , t / t0);
            }
            let mm = best(|| unsafe { matrixmultiply::sgemm(m, k, n, 1.0, x.as_ptr(), k as isize, 1, w.as_ptr(), n as isize, 1, 0.0, y.as_mut_ptr(), n as isize, 1) }, 0.2);
            println!("{m:5} {k:5} {n:5} bare {:5.1}% {:6.1} GF | relu.5 relu.1 gelu.5 {row} | mm {:5.1}%", flops / t0 / p / threads as f64 * 100.0, flops / t0 / 1e9, flops / mm / p * 100.0);
        }
    }
}
fn p_of(_: f64, x: f64) -> f64 { x }
fn peak(level: Level, threads: usize) -> f64 { use std::sync::OnceLock; static A: OnceLock<[f64; 2]> = OnceLock::new(); let v = A.get_or_init(|| [12e5 * 16.0 / best(|| { std::hint::black_box(unsafe { peak2(100000) }); }, 0.3), 24e5 * 32.0 / best(|| { std::hint::black_box(unsafe { peak5(100000) }); }, 0.3)]); threads as f64 * if level == Level::Avx2 { v[0] } else { v[1] } }

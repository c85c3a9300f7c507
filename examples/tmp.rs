use fused_dropout::*;
use std::time::Instant;
fn best(mut f: impl FnMut(), n: usize) -> f64 { let mut b = f64::MAX; for _ in 0..60 { let t = Instant::now(); f(); b = b.min(t.elapsed().as_secs_f64()); } b * 1e9 / n as f64 }
fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    for n in [1usize << 16, 1 << 20] {
        let x = vec![1.0f32; n]; let mut y = vec![0.0f32; n];
        let c = best(|| y.copy_from_slice(&x), n);
        println!("n {n} copy {c:.4}");
        for level in Level::available() {
            for p in [0.5, 0.25, 0.1] {
                let d = Dropout::new(p).unwrap(); let k = MaskKey::new(1, 2, 3).unwrap();
                let mut m = Mask::new(1, n).unwrap();
                level.install(|| {
                    let tm = best(|| m.fill(&d, &k).unwrap(), n);
                    let td = best(|| dropout_forward(MatRef::row_vector(&x), MatMut::row_vector(&mut y), &d, &k, None).unwrap(), n);
                    let ts = best(|| dropout_backward(MatRef::row_vector(&x), MatMut::row_vector(&mut y), &d, &k, Some(&m)).unwrap(), n);
                    println!("{level:9} p {p}: mask {tm:.4}  forward {td:.4} stored {ts:.4}");
                }).unwrap();
            }
        }
    }
}

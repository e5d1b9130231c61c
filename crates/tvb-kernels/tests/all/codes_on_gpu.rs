//! Codes from a GPU against the CPU's, and edits that it decodes.

use crate::codes::{Made, code, gaussian_tasks, made, with_codes};
use crate::common::device::gpu;
use tvb_kernels::*;

fn on_cpu<W: Work>(work: &W, chunk: Chunk<'_>) -> W::Output {
    let cpu = CpuEngine::new();
    let mut out = W::Output::default();
    cpu.run(work, chunk, &mut cpu.scratch(), &mut out).expect("a sound chunk");
    out
}

fn chunk(made: &Made) -> Chunk<'_> {
    Chunk { layout: &made.layout, bytes: &made.bytes }
}

#[test]
fn probe() {
    let Some((engine, _turn)) = gpu() else { return };
    let made = gaussian_tasks(&[PANEL, 2 * PANEL + 700, 1, 255, 256, 257, 9 * 256, 3000], 3);
    for rate in Rate::ALL {
        for kept in [None, Some(Rate::Sixteen)] {
            let code = code(rate, kept, 3);
            let found = engine.run(&code, chunk(&made)).expect("sound");
            let expected = on_cpu(&code, chunk(&made));
            assert_eq!(found.words.len(), expected.words.len());
            let words = found.words.iter().zip(&expected.words).filter(|(a, b)| a != b).count();
            let scales = found.scales.iter().zip(&expected.scales).filter(|(a, b)| a != b).count();
            let mut worst = 0.0f64;
            let mut same = 0;
            for (f, e) in found.measured.iter().zip(&expected.measured) {
                for (f, e) in [(f.energy, e.energy), (f.product, e.product), (f.decoded, e.decoded)] {
                    worst = worst.max((f - e).abs() / e);
                    same += usize::from(f == e);
                }
            }
            println!("{rate:?} {kept:?}: words {words}/{}, scales {scales}/{}, sums {worst:e}, {same} same", found.words.len(), found.scales.len());
            let (layout, bytes, rates) = with_codes(&made, &code, &expected);
            let weights: Vec<f32> = (0..rates.len() * 2).map(|at| [0.5, -1.0, 0.0, 2.0, 0.25][at % 5]).collect();
            for dtype in [None, Some(Dtype::F16), Some(Dtype::Bf16)] {
                let decode = Decode { rates: rates.clone(), weights: weights.clone(), n_outputs: 2, base: Base::Added, dtype, seed: code.seed };
                let chunk = Chunk { layout: &layout, bytes: &bytes };
                let found = engine.run(&decode, chunk).expect("sound");
                let expected = on_cpu(&decode, chunk);
                assert_eq!(found.len(), expected.len());
                let n = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
                println!("   decode {dtype:?}: {n} bytes of {}", found.len());
            }
        }
    }
}

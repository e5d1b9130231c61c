//! Many small tensors in one chunk of a GPU: what lies between their slices and codes has room, too.

use crate::gpu_device::{test_gpu, write_plan};
use std::path::Path;
use tvb::checkpoint::Checkpoint;
use tvb::pass::Runtime;
use tvb::{CompressOptions, Silent, apply, compress};
use tvb_kernels::{DeviceSetup, Engine, decode};
use tvb_tests::small_models::{Random, Shape, Stored, values};

fn floats(path: &Path) -> Vec<f32> {
    let checkpoint = Checkpoint::open(path).expect("what was just written");
    let read = |tensor| {
        let tensor: &tvb::checkpoint::Tensor = tensor;
        let mut bytes = vec![0; tensor.n_bytes() as usize];
        checkpoint.read(tensor, 0, &mut bytes).expect("its bytes");
        decode(&bytes, tvb_kernels::Dtype::F32)
    };
    checkpoint.tensors().iter().flat_map(read).collect()
}

#[test]
fn an_edit_from_codes_of_many_small_tensors_is_the_same_on_a_gpu() {
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    let top = tempfile::tempdir().expect("a folder");
    // No size of a cache line, and many in one chunk.
    let shape = |at| Shape { name: format!("layer.{at:03}"), shape: vec![111, 111], stored: Stored::F32 };
    let shapes: Vec<Shape> = (0..45).map(shape).collect();
    let (base, tasks) = values(&shapes, 4, &mut Random(11));
    let plan = write_plan(top.path(), &shapes, &base, &tasks);
    let on_cpu = Runtime::on_cpu(2, 64 << 20);
    let basis =
        compress(&plan, &CompressOptions::new(top.path().join("basis")), &on_cpu, &Silent).expect("a basis").basis;
    let edit = |name: &str, runtime: &Runtime| {
        let path = top.path().join(name);
        apply(&basis, "0.5*task0 - 0.25*task3 + task1", &plan.base, &path, runtime, &Silent).expect("an edit");
        floats(&path)
    };
    let expected = edit("cpu.safetensors", &on_cpu);
    let found = edit("gpu.safetensors", &Runtime::on(Engine::Gpu(engine)).with_threads(2));
    assert_eq!((found.len(), expected.len()), (45 * 111 * 111, 45 * 111 * 111));
    let differs = expected.iter().zip(&found).find(|(a, b)| (*a - *b).abs() > 1e-5);
    assert_eq!(differs, None);
    assert!(floats(plan.base.path()) != expected, "the edit moves nothing");
}

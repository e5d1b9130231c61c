//! A model that has learned nothing yet.

use crate::model::{Elements, Start, Tensor, Tensors, layout};
use crate::random::Stream;

/// Every tensor as its layout says it starts; the random ones follow from the seed.
pub(super) fn untrained(seed: u64) -> Tensors {
    let mut tensors = Tensors::new();
    for spec in layout() {
        let mut random = Stream::named(seed, &["start", &spec.name]);
        let n_elements: usize = spec.shape.iter().product();
        let elements = match spec.start {
            Start::Normal(deviation) => Elements::F32((0..n_elements).map(|_| deviation * random.normal()).collect()),
            Start::Constant(value) => Elements::F32(vec![value; n_elements]),
            Start::Counting => Elements::I64((0..n_elements as i64).collect()),
        };
        tensors.insert(spec.name, Tensor { shape: spec.shape, elements });
    }
    tensors
}

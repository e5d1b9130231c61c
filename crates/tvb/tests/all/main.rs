//! What the library does from its public side: whole passes and jobs on small models, solvers on many Gram matrices.
//!
//! One program, since each links the whole engine: `cargo test -p tvb --test all solve::` runs a part of it.

mod checkpoint;
mod choice;
mod coded;
mod device_faults;
mod extend_coded;
mod extend_gram;
mod extend_mixtures;
mod factors;
mod faults;
mod gpu_device;
mod hostile;
mod in_memory;
mod inputs;
mod interop;
mod kept;
mod kept_on_device;
mod lora;
mod lora_damage;
mod many_small;
mod merge;
mod merge_sources;
mod numbers;
mod numbers_on_gpu;
mod parts_compress;
mod parts_gram;
mod properties;
mod report;
mod solve;
mod spans;
mod spectra;

//! The safetensors format: `header` reads and checks what a file says about itself.

mod header;

pub use header::SafetensorsHeader;

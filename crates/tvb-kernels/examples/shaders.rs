//! Writes every variant of every shader as a WGSL file into a folder, for compilers other than wgpu's:
//!
//! ```text
//! cargo run -p tvb-kernels --example shaders -- target/shaders
//! ```

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("a folder is expected")?);
    std::fs::create_dir_all(&folder)?;
    for variant in tvb_kernels::shader_variants()? {
        std::fs::write(folder.join(format!("{}.wgsl", variant.name)), variant.source)?;
    }
    Ok(())
}

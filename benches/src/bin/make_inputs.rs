//! Made-up checkpoints for a measurement: `make_inputs FOLDER N_TASKS N_PARAMETERS [f32|bf16 [vit|gpt2]]`.

use std::path::Path;
use tvb_benches::{Shapes, make_inputs};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<usize>().ok());
    let is_bf16 = match args.get(3).map(String::as_str) {
        None | Some("f32") => Some(false),
        Some("bf16") => Some(true),
        Some(_) => None,
    };
    let shapes = match args.get(4).map(String::as_str) {
        None | Some("vit") => Some(Shapes::Vit),
        Some("gpt2") => Some(Shapes::Gpt2),
        Some(_) => None,
    };
    let (Some(folder), Some(n_tasks), Some(n_parameters), Some(is_bf16), Some(shapes)) =
        (args.first(), number(1), number(2), is_bf16, shapes)
    else {
        eprintln!("usage: make_inputs FOLDER N_TASKS N_PARAMETERS [f32|bf16 [vit|gpt2]]");
        std::process::exit(2);
    };
    make_inputs(Path::new(folder), n_tasks, n_parameters, is_bf16, shapes).map(drop)
}

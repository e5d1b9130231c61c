//! Made-up checkpoints for a measurement: `make_inputs FOLDER N_TASKS N_PARAMETERS [f32|bf16]`.

use std::path::Path;
use tvb_benches::make_inputs;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<usize>().ok());
    let (Some(folder), Some(n_tasks), Some(n_parameters)) = (args.first(), number(1), number(2)) else {
        eprintln!("usage: make_inputs FOLDER N_TASKS N_PARAMETERS [f32|bf16]");
        std::process::exit(2);
    };
    let is_bf16 = args.get(3).is_some_and(|dtype| dtype == "bf16");
    make_inputs(Path::new(folder), n_tasks, n_parameters, is_bf16).map(drop)
}

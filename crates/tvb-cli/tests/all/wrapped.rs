//! One fine-tune in the ways in which training leaves it: wrapped by torch.compile, DDP, SWA, in Lightning's layout.
//! The files are in `tests/fixtures/wrapped`, written by the libraries themselves.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use tvb_tests::fixture;

/// Runs `tvb` in the folder of the files with its output elsewhere; answers exit code, stdout, stderr.
fn run(line: &str, out: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    let words = line.split_whitespace().map(|word| word.replace("OUT", out.to_str().expect("UTF-8")));
    command.args(words).current_dir(fixture("wrapped")).stdin(Stdio::null());
    let Output { status, stdout, stderr } =
        command.env_remove("TVB_DEVICE").env_remove("TVB_LOG").output().expect("tvb runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("a code"), text(stdout), text(stderr))
}

#[test]
fn wrappers_change_no_bit_of_an_edit() {
    let top = tempfile::tempdir().expect("a folder");
    let edited = |tune: &str| {
        let out = top.path().join(format!("{tune}.safetensors"));
        let (code, _, err) = run(&format!("add --base base.pt --scale 0.5 -o OUT --from-checkpoints {tune}.pt"), &out);
        assert_eq!(code, 0, "{tune}: {err}");
        std::fs::read(out).expect("an output")
    };
    let plain = edited("tune");
    for kind in ["compiled", "ddp", "parallel_compiled", "swa", "lightning"] {
        assert!(edited(&format!("tune_{kind}")) == plain, "{kind}: another edit");
    }
}

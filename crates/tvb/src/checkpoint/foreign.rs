//! Files and folders of other programs that hold weights which are not read here: what each is, and how to get a file of it
//! that is.

use super::DataFile;
use super::shown::shown;
use crate::error::{Error, Result};
use std::path::Path;

/// (first bytes, what such a file is, what to do).
const MAGICS: [(&[u8], &str, &str); 6] = [
    (
        b"GGUF",
        "a GGUF file of llama.cpp, whose weights are mostly quantized",
        "name the model that it was made from; or load it with transformers, from_pretrained(DIR, gguf_file=FILE), and \
         save_pretrained",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, as TensorFlow and Keras write them",
        "load it with transformers 4, from_pretrained(DIR, from_tf=True), and save_pretrained",
    ),
    (b"\x93NUMPY", "a NumPy array", "save the state dict with safetensors or torch.save"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
    (b"<!DOCTYPE html", "a web page, not the file itself", "download it again, with the hub's own client"),
    (b"<html", "a web page, not the file itself", "download it again, with the hub's own client"),
];

/// (end of the name, what such a file is, what to do), where the first bytes do not tell.
const ENDINGS: [(&str, &str, &str); 9] = [
    (
        ".msgpack",
        "a Flax file",
        "load it with transformers 4, from_pretrained(DIR, from_flax=True), and save_pretrained",
    ),
    (".onnx", "an ONNX model", "name the weights that it was exported from"),
    (".npz", "NumPy arrays", "save the state dict with safetensors or torch.save"),
    (".keras", "a Keras model", "save the weights with safetensors"),
    (
        ".h5",
        "a TensorFlow file",
        "load it with transformers 4, from_pretrained(DIR, from_tf=True), and save_pretrained",
    ),
    (
        ".pb",
        "a TensorFlow graph",
        "load it with transformers 4, from_pretrained(DIR, from_tf=True), and save_pretrained",
    ),
    (".nemo", "a NeMo archive", "unpack it with tar and name the weights in it"),
    (".distcp", "a part of a distributed checkpoint", DCP_HINT),
    ("_optim_states.pt", "a DeepSpeed optimizer state", ZERO_HINT),
];

const DCP_HINT: &str = "make one file of its folder: python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR \
                        OUT.pt";
const ZERO_HINT: &str =
    "make one file of the run's folder: python zero_to_fp32.py DIR OUT (DeepSpeed puts the script there)";

/// Whether a data file is one of another program's.
///
/// # Errors
/// Rejected: it is; says which and what to do.
pub(super) fn refuse(file: &DataFile, start: &[u8]) -> Result<()> {
    let refused =
        |what: &str, hint: &str| Err(Error::rejected(format!("{}: is {what}", file.path.display())).hint(hint));
    if let Some((_, what, hint)) = MAGICS.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return refused(what, hint);
    }
    let name = file.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_zip = start.starts_with(b"PK");
    let known = ENDINGS.iter().find(|(end, ..)| name.ends_with(end)).or_else(|| {
        let first_is_array = is_zip && first_entry(start).is_some_and(|entry| entry.ends_with(b".npy"));
        ENDINGS.iter().find(|(end, ..)| first_is_array && *end == ".npz")
    });
    known.map_or(Ok(()), |(_, what, hint)| refused(what, hint))
}

/// The name of the first file of a zip archive, as much as there is of it.
fn first_entry(start: &[u8]) -> Option<&[u8]> {
    let n_bytes = u16::from_le_bytes(start.get(26..28)?.try_into().ok()?);
    start.get(30..)?.get(..usize::from(n_bytes))
}

/// The error for a folder that holds a model in the parts that training on many devices leaves; `None` where it is none.
pub(super) fn parts(path: &Path, names: &[String]) -> Option<Error> {
    let has = |is: &dyn Fn(&str) -> bool| names.iter().any(|name| is(&name.to_lowercase()));
    let refused = |what: &str, hint: String| refused_folder(path, what, &hint);
    let dcp = |folder: &Path| {
        let hint = DCP_HINT.replace("its folder", "it").replace("DIR", &folder.display().to_string());
        refused("a distributed checkpoint (DCP), which is not read as it is", hint)
    };
    if has(&|name| name.ends_with(".distcp") || name == ".metadata") {
        return Some(dcp(path));
    }
    // FSDP puts it one folder deeper.
    let inner = names.iter().map(|name| path.join(name)).find(|inner| inner.join(".metadata").is_file());
    if let Some(inner) = inner {
        return Some(dcp(&inner));
    }
    if has(&|name| name.starts_with("global_step") || name == "zero_to_fp32.py" || name.ends_with("_optim_states.pt")) {
        let hint = ZERO_HINT.replace("the run's folder", "it").replace("DIR", &path.display().to_string());
        return Some(refused("a DeepSpeed checkpoint in parts (ZeRO), which is not read as it is", hint));
    }
    if has(&|name| name.starts_with("mp_rank_") || name == "latest_checkpointed_iteration.txt") {
        let hint = "a DeepSpeed run: python zero_to_fp32.py DIR OUT; a Megatron run: convert it with Megatron's own tools \
                    to one file or a Hugging Face folder";
        return Some(refused(
            "a checkpoint in parts for model parallelism (mp_rank_…), which is not read as it is",
            hint.into(),
        ));
    }
    None
}

/// The error for a folder without weights that are read here, and with a file of another program's; `None` where it has none.
pub(super) fn other(path: &Path, names: &[String]) -> Option<Error> {
    let gguf = (".gguf", "a GGUF file", "name the model that it was made from");
    let ends = |name: &&String, end: &str| name.to_lowercase().ends_with(end);
    let found = ENDINGS.into_iter().chain([gguf]);
    let (what, hint, name) = found
        .into_iter()
        .find_map(|(end, what, hint)| Some((what, hint, names.iter().find(|name| ends(name, end))?)))?;
    Some(refused_folder(path, &format!("no weights that are read here, but {what}: {}", shown(name)), hint))
}

fn refused_folder(path: &Path, what: &str, hint: &str) -> Error {
    Error::rejected(format!("{}: {what}", path.display())).hint(hint)
}

#[cfg(test)]
mod tests {
    use crate::ErrorKind;
    use crate::checkpoint::Checkpoint;
    use std::path::Path;

    fn refused(path: &Path) -> String {
        let error = Checkpoint::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        let hint = error.hint_text().expect("a hint");
        assert!(!error.message().contains('\n'), "{error}");
        format!("{}\n{hint}", error.message())
    }

    #[test]
    fn files_of_other_programs_are_called_by_their_names() {
        let top = tempfile::tempdir().unwrap();
        let zip = |entry: &str| {
            let length = entry.len() as u16;
            [b"PK\x03\x04".as_slice(), &[0; 22], &length.to_le_bytes(), &[0; 2], entry.as_bytes()].concat()
        };
        let cases: [(&str, Vec<u8>, &str); 10] = [
            ("model.gguf", b"GGUF\x03\0\0\0".into(), "GGUF"),
            ("model.bin", b"GGUF\x03\0\0\0".into(), "GGUF"),
            ("tf_model.h5", b"\x89HDF\r\n\x1a\n".into(), "HDF5"),
            ("flax_model.msgpack", b"\x81\xa6params".into(), "from_flax"),
            ("model.onnx", b"\x08\x07\x12\x07pytorch".into(), "ONNX"),
            ("arrays.npz", zip("w.npy"), "NumPy"),
            ("arrays", zip("w.npy"), "NumPy"),
            ("w.npy", b"\x93NUMPY".into(), "NumPy"),
            ("__0_0.distcp", zip("a/data.pkl"), "dcp_to_torch"),
            ("model.safetensors", b"<!DOCTYPE html><html>".into(), "web page"),
        ];
        for (name, bytes, expected) in cases {
            let path = top.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert!(refused(&path).contains(expected), "{name}: {}", refused(&path));
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn folders_of_other_programs_are_called_by_their_names() {
        let cases: [(&[&str], &str); 9] = [
            (&[".metadata", "__0_0.distcp"], "dcp_to_torch"),
            (&["pytorch_model_fsdp_0/.metadata", "trainer_state.json"], "pytorch_model_fsdp_0 OUT.pt"),
            (&["global_step10/mp_rank_00_model_states.pt", "latest"], "zero_to_fp32.py"),
            (&["zero_pp_rank_0_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"], "zero_to_fp32.py"),
            (&["iter_0000100/x", "latest_checkpointed_iteration.txt"], "Megatron"),
            (&["consolidated.00.pth", "consolidated.01.pth", "params.json"], "model parallelism"),
            (&["tf_model.h5", "config.json"], "`tf_model.h5`"),
            (&["flax_model.msgpack"], "from_flax"),
            (&["model.Q4_K_M.gguf"], "GGUF"),
        ];
        for (files, expected) in cases {
            let top = tempfile::tempdir().unwrap();
            for file in files {
                let path = top.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "x").unwrap();
            }
            assert!(refused(top.path()).contains(expected), "{files:?}: {}", refused(top.path()));
        }
    }
}

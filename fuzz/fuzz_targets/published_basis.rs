//! A published basis folder of which one file is mutilated: the first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tvb::ErrorKind;
use tvb::checkpoint::Existing;
use tvb::jobs::interop::import;
use tvb_fuzz::{HeadersOnly, cpu, probe, put};

const FOLDERS: [(&str, [&str; 3]); 4] = [
    ("AE", ["AWB.pt", "basis_vectors.pt", "method_info.json"]),
    ("PCA", ["pca_components.pt", "basis_vectors.pt", "method_info.json"]),
    ("Random", ["random_basis.pt", "basis_vectors.pt", "method_info.json"]),
    ("RandomSample", ["random_selection.json", "basis_vectors.pt", "method_info.json"]),
];

/// The folders, and the bytes of their files.
struct Probes {
    folders: [TempDir; 4],
    whole: [[Vec<u8>; 3]; 4],
}

thread_local! {
    static PROBES: Probes = {
        let folders = FOLDERS.map(|(name, _)| probe(name));
        let whole = std::array::from_fn(|i| FOLDERS[i].1.map(|file| std::fs::read(folders[i].path().join(file)).unwrap()));
        Probes { folders, whole }
    };
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    let (which, file) = (usize::from(which / 3) % FOLDERS.len(), usize::from(which % 3));
    PROBES.with(|probes| {
        let (folder, name) = (&probes.folders[which], FOLDERS[which].1[file]);
        put(folder, name, bytes);
        let output = folder.path().join("imported");
        let error = import(folder.path(), &output, Existing::Refuse, &cpu(), &HeadersOnly).err();
        // Either its headers were refused, or the pass was stopped; nothing is left in both cases.
        assert!(error.is_none_or(|error| matches!(
            error.kind(),
            ErrorKind::Rejected | ErrorKind::Interrupted | ErrorKind::Failed
        )));
        let _ = std::fs::remove_dir_all(&output);
        put(folder, name, &probes.whole[which][file]);
    });
});

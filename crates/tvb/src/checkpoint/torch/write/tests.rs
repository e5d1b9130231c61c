//! What is written is read back, entry for entry.

use super::{SaveStorage, SaveTensor, SaveValue, TorchWriter};
use crate::checkpoint::torch::TorchFile;
use crate::checkpoint::{Checkpoint, Dtype, Layout, TensorSpec};

const DTYPES: [Dtype; 16] = [
    Dtype::F64,
    Dtype::F32,
    Dtype::F16,
    Dtype::Bf16,
    Dtype::I64,
    Dtype::I32,
    Dtype::I16,
    Dtype::I8,
    Dtype::U64,
    Dtype::U32,
    Dtype::U16,
    Dtype::U8,
    Dtype::Bool,
    Dtype::F8E4M3,
    Dtype::F8E5M2,
    Dtype::Complex64,
];

fn pattern(seed: usize, n_bytes: u64) -> Vec<u8> {
    (0..n_bytes).map(|i| ((i * 13 + seed as u64 * 29) % 251) as u8).collect()
}

#[test]
fn a_state_dict_of_every_type_comes_back() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("model.pt");
    let shapes: [&[usize]; 5] = [&[3, 5], &[], &[0, 2], &[7], &[2, 1, 3]];
    let specs: Vec<TensorSpec> = DTYPES
        .iter()
        .enumerate()
        .map(|(k, &dtype)| TensorSpec { name: format!("layer.{k}.w\n\"ü"), dtype, shape: shapes[k % 5].to_vec() })
        .collect();
    let writer = TorchWriter::create_state_dict(&path, "model", &specs).unwrap();
    std::thread::scope(|threads| {
        for (k, spec) in specs.iter().enumerate() {
            let writer = &writer;
            threads.spawn(move || {
                let bytes = pattern(k, spec.n_bytes().unwrap());
                let middle = bytes.len() / 3;
                writer.write_at(k, middle as u64, &bytes[middle..]).unwrap();
                writer.write_at(k, 0, &bytes[..middle]).unwrap();
            });
        }
    });
    writer.finish().unwrap();

    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(*checkpoint.layout(), Layout::TorchFile);
    let found: Vec<TensorSpec> = checkpoint.in_key_order().map(TensorSpec::from).collect();
    assert_eq!(found, specs);
    for (k, tensor) in checkpoint.in_key_order().enumerate() {
        let mut bytes = vec![0; tensor.n_bytes() as usize];
        checkpoint.read(tensor, 0, &mut bytes).unwrap();
        assert_eq!(bytes, pattern(k, tensor.n_bytes()));
        assert_eq!(tensor.place.sort_key().1 % 64, 0, "data is aligned as PyTorch aligns it");
    }
}

#[test]
fn any_value_comes_back() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("basis.pt");
    let storages = [SaveStorage { dtype: Dtype::F32, n_elements: 24 }];
    let view = SaveTensor { storage: 0, dtype: Dtype::F32, offset: 0, shape: vec![3, 8], strides: vec![1, 3] };
    let ints = [0, 255, 256, 65_535, 65_536, -1, i64::from(i32::MAX), i64::MAX, i64::MIN];
    let value = SaveValue::Dict(vec![
        ("none".into(), SaveValue::None),
        ("yes".into(), SaveValue::Bool(true)),
        ("no".into(), SaveValue::Bool(false)),
        ("ints".into(), SaveValue::List(ints.map(SaveValue::Int).to_vec())),
        ("float".into(), SaveValue::Float(-0.1)),
        ("text".into(), "ü\n".into()),
        ("size".into(), SaveValue::Size(vec![4, 0, 70_000])),
        ("tuple".into(), SaveValue::Tuple(vec![SaveValue::List(vec![]), SaveValue::Dict(vec![])])),
        (
            "atoms".into(),
            SaveValue::List(vec![SaveValue::OrderedDict(vec![("w".into(), SaveValue::Tensor(view.clone()))])]),
        ),
    ]);
    let writer = TorchWriter::create(&path, "basis", &value, &storages).unwrap();
    let bytes = pattern(1, 96);
    writer.write_at(0, 0, &bytes).unwrap();
    writer.finish().unwrap();

    let file = TorchFile::open(&path).unwrap();
    let root = file.root();
    let get = |key: &str| root.get(key).unwrap();
    assert_eq!(root.entries().unwrap().len(), 9);
    assert!(get("none").is_none());
    assert_eq!((get("yes").as_bool(), get("no").as_bool()), (Some(true), Some(false)));
    assert_eq!(get("ints").items().unwrap().map(|int| int.as_i64().unwrap()).collect::<Vec<_>>(), ints);
    assert_eq!(get("float").as_f64(), Some(-0.1));
    assert_eq!(get("text").as_str(), Some("ü\n"));
    assert_eq!(get("size").items().unwrap().map(|int| int.as_i64().unwrap()).collect::<Vec<_>>(), [4, 0, 70_000]);
    assert_eq!(get("tuple").items().unwrap().len(), 2);
    let atom = get("atoms").items().unwrap().next().unwrap();
    let tensor = atom.get("w").unwrap().tensor("w").unwrap();
    assert_eq!(tensor.shape, [3, 8]);
    let mut row = [0; 32];
    file.read(&tensor, 0, &mut row).unwrap();
    let expected: Vec<u8> = (0..8).flat_map(|j| bytes[j * 12..j * 12 + 4].to_vec()).collect();
    assert_eq!(row[..], expected);
    // The same value gives the same bytes.
    let again = top.path().join("again.pt");
    let writer = TorchWriter::create(&again, "basis", &value, &storages).unwrap();
    writer.write_at(0, 0, &bytes).unwrap();
    writer.finish().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
}

#[test]
fn incomplete_and_impossible_files_are_refused() {
    let top = tempfile::tempdir().unwrap();
    let specs = [TensorSpec { name: "w".into(), dtype: Dtype::F32, shape: vec![4] }];
    let parts: [(&[(u64, usize)], &str); 4] = [
        (&[], "expected 16 bytes, only 0 were written"),
        (&[(0, 8)], "expected 16 bytes, only 8 were written"),
        (&[(0, 4), (8, 8)], "expected its next part at 4, found 8"),
        (&[(0, 16), (12, 4)], "expected its next part at 16, found 12"),
    ];
    for (k, (parts, expected)) in parts.iter().enumerate() {
        let writer = TorchWriter::create_state_dict(&top.path().join(format!("{k}.pt")), "m", &specs).unwrap();
        for &(offset, n_bytes) in *parts {
            writer.write_at(0, offset, &vec![1; n_bytes]).unwrap();
        }
        assert!(writer.write_at(0, 13, &[0; 4]).is_err());
        let error = writer.finish().unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
    let storages = [SaveStorage { dtype: Dtype::F32, n_elements: 4 }];
    let tensors = [
        (SaveTensor::contiguous(0, 1, Dtype::F32, &[4]), "leaves its storage of 4 elements"),
        (SaveTensor::contiguous(1, 0, Dtype::F32, &[4]), "a tensor in storage 1 of 1"),
        (SaveTensor::contiguous(0, 0, Dtype::F16, &[4]), "in a storage of f32"),
    ];
    for (tensor, expected) in tensors {
        let path = top.path().join("x.pt");
        let error = TorchWriter::create(&path, "x", &SaveValue::Tensor(tensor), &storages).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
        assert!(!path.exists());
    }
}

/// Sizes beyond 4 GB, in a file that is mostly a hole.
#[cfg(target_os = "linux")]
#[test]
fn sizes_beyond_32_bits_are_read_as_they_were_written() {
    use super::zip_layout::ZipLayout;
    use crate::checkpoint::DataFile;
    use crate::checkpoint::torch::zip::Archive;
    use std::os::unix::fs::FileExt;
    let sizes = [5u64 << 30, u64::from(u32::MAX), 7, u64::from(u32::MAX) - 1, 9];
    let layout = ZipLayout::new(sizes.iter().enumerate().map(|(k, &n)| (format!("m/data/{k}"), n)).collect()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(layout.file_bytes()).unwrap();
    for entry in 0..sizes.len() {
        file.as_file().write_all_at(&layout.local_header(entry, 0), layout.header_offset(entry)).unwrap();
    }
    file.as_file().write_all_at(&layout.directory(&[0; 5]), layout.directory_offset()).unwrap();

    let data = DataFile::open(file.path()).unwrap();
    let archive = Archive::read(&data).unwrap();
    for (k, &n_bytes) in sizes.iter().enumerate() {
        let name = format!("m/data/{k}");
        let entry = archive.entry(&name).unwrap();
        assert_eq!(entry.n_bytes, n_bytes);
        assert_eq!(archive.locate(&data, &name, entry).unwrap(), layout.data_offset(k));
    }
}

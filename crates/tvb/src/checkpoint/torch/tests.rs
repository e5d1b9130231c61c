//! Hostile files: everything that a pickle, a zip archive or a legacy container can claim and must not get.

use super::write::forge;
use crate::ErrorKind;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

mod archives;
mod bounds;
mod pickles;

// Pieces of pickles, in the opcodes of protocol 2.

fn unicode(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(value: i32) -> Vec<u8> {
    [b"J", &value.to_le_bytes()[..]].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn ints(values: &[i32]) -> Vec<u8> {
    tuple(&values.iter().map(|&value| int(value)).collect::<Vec<_>>())
}

/// A storage: class, key, number of elements.
fn storage(class: &str, key: &str, n_elements: i32) -> Vec<u8> {
    let class = format!("ctorch\n{class}\n").into_bytes();
    [tuple(&[unicode("storage"), class, unicode(key), unicode("cpu"), int(n_elements)]), b"Q".to_vec()].concat()
}

/// A tensor as `_rebuild_tensor_v2` makes it.
fn tensor(storage: Vec<u8>, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let args = tuple(&[storage, int(offset), ints(shape), ints(strides), b"\x89".to_vec(), b"}".to_vec()]);
    [b"ctorch._utils\n_rebuild_tensor_v2\n", &args[..], b"R"].concat()
}

/// A plain tensor of two floats in storage `0`.
fn pair() -> Vec<u8> {
    tensor(storage("FloatStorage", "0", 2), 0, &[2], &[1])
}

/// A pickle of a dict.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let body: Vec<u8> = entries.iter().flat_map(|(key, value)| [unicode(key), value.clone()].concat()).collect();
    [b"}(", &body[..], b"u"].concat()
}

fn pickled(value: Vec<u8>) -> Vec<u8> {
    [b"\x80\x02", &value[..], b"."].concat()
}

/// An archive of that pickle, with eight bytes in storage `0`.
fn archive(pickle: &[u8]) -> Vec<u8> {
    forge(&[("m/data.pkl", pickle), ("m/data/0", &[0, 0, 128, 63, 0, 0, 0, 64]), ("m/version", b"3\n")])
}

fn open(bytes: &[u8]) -> Result<Checkpoint> {
    let file = tempfile::Builder::new().suffix(".pt").tempfile().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Checkpoint::open(file.path())
}

fn open_pickle(value: Vec<u8>) -> Result<Checkpoint> {
    open(&archive(&pickled(value)))
}

#[track_caller]
fn check_refused(result: Result<Checkpoint>, expected: &str) -> Error {
    let error = match result {
        Ok(checkpoint) => panic!("expected {expected:?}, found tensors: {:?}", checkpoint.tensors()),
        Err(error) => error,
    };
    assert!(error.message().contains(expected), "expected {expected:?} in: {error}");
    assert!(!error.message().contains('\n') && error.message().len() < 1000, "{error}");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    error
}

/// An object whose state is a dict: a module, when the dict has the right entries.
fn object(state: Vec<u8>) -> Vec<u8> {
    [b"cm\nNet\n)\x81", &state[..], b"b"].concat()
}

fn module(parameters: &[(&str, Vec<u8>)], modules: &[(&str, Vec<u8>)]) -> Vec<u8> {
    object(dict(&[("_parameters", dict(parameters)), ("_buffers", dict(&[])), ("_modules", dict(modules))]))
}

/// Random damage to valid files: refused, or read as tensors that lie in the file; and nothing panics.
#[test]
fn mutated_files_never_panic() {
    use crate::checkpoint::n_mutations;
    use rand::{RngExt, SeedableRng};
    const OPCODES: &[u8] = b"()tuQRbcXKJ]}.0N\x81\x85qh";
    let parameters = [("w", pair()), ("v", tensor(storage("FloatStorage", "0", 2), 0, &[2, 1], &[0, 1]))];
    let net = module(&parameters, &[("a", module(&parameters, &[]))]);
    let mut legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    legacy.extend(pickled(dict(&parameters)));
    legacy.extend([pickled([b"](".to_vec(), unicode("0"), b"e".to_vec()].concat()), vec![2], vec![0; 15]].concat());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
    for valid in [archive(&pickled(dict(&parameters))), archive(&pickled(net)), legacy] {
        let mut n_read = 0;
        for _ in 0..n_mutations() {
            let mut bytes = valid.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..5) {
                    0 => bytes[at] ^= 1 << random.random_range(0..8),
                    1 => bytes[at] = OPCODES[random.random_range(0..OPCODES.len())],
                    2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
                    3 if random.random_bool(0.1) => bytes.truncate(at.max(1)),
                    _ => drop(
                        bytes.splice(at..at, valid[at % valid.len()..].iter().copied().take(8).collect::<Vec<_>>()),
                    ),
                }
            }
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(checkpoint) = Checkpoint::open(&path) {
                n_read += 1;
                for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.n_bytes() < 1 << 20) {
                    checkpoint.read(tensor, 0, &mut vec![0; tensor.n_bytes() as usize]).unwrap();
                }
            }
        }
        assert!(n_read > 10, "some damage only changes a name, {n_read}");
    }
}

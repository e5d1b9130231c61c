//! What small files may make of memory and time: one budget for all that are open, and work in proportion to what is there.

use super::*;
use crate::checkpoint::limits::CLASS_NAME_BYTES_MAX;
use crate::checkpoint::{Budget, OpenOptions};
use std::sync::atomic::{AtomicUsize, Ordering};

fn open_within(bytes: &[u8], budget: &Budget) -> Result<Checkpoint> {
    let file = tempfile::Builder::new().suffix(".pt").tempfile().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Checkpoint::open_with(file.path(), &OpenOptions { key: None, budget: budget.clone() })
}

/// An archive whose entries are compressed.
fn deflated(entries: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write;
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        let stored = encoder.finish().unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let offset = bytes.len() as u32;
        let mut common = [20u16, 0, 8, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        for n in [crc.sum(), stored.len() as u32, data.len() as u32] {
            common.extend(n.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        bytes.extend([b"PK\x03\x04", &common[..], name.as_bytes(), &stored].concat());
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &[0; 10], &offset.to_le_bytes(), name.as_bytes()].concat());
    }
    let n_entries = (entries.len() as u16).to_le_bytes();
    let (n_bytes, offset) = ((directory.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
    bytes.extend(&directory);
    bytes.extend([b"PK\x05\x06\0\0\0\0", &n_entries[..], &n_entries, &n_bytes, &offset, &[0; 2]].concat());
    bytes
}

/// Modules that hold the one before twice, so that the innermost has 2^`n_levels` names.
fn tree(innermost: Vec<u8>, n_levels: u8, name: &str) -> Vec<u8> {
    let mut tree = [innermost, b"q\x00".to_vec()].concat();
    for level in 1..=n_levels {
        let inner = vec![b'h', level - 1];
        let next = module(&[], &[(&format!("a{name}"), inner.clone()), (&format!("b{name}"), inner)]);
        tree = [tree, b"0".to_vec(), next, vec![b'q', level]].concat();
    }
    tree
}

#[test]
fn names_of_shared_modules_are_paid_for() {
    // Thousands of names of 4 kB from less than 10 kB of pickle.
    let budget = Budget::new(8 << 20);
    let leaf = || module(&[(&"w".repeat(900), pair())], &[]);
    let error = open_within(&archive(&pickled(tree(leaf(), 19, &"x".repeat(150)))), &budget).unwrap_err();
    assert!(error.message().ends_with("for the names of its tensors"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("--memory")));
    assert_eq!((error.kind(), budget.left()), (ErrorKind::Rejected, budget.limit()));

    // Entries that are no modules have names like any other.
    let odd: Vec<(String, Vec<u8>)> = (0..2000).map(|n| (format!("n{n}"), b"K\x01".to_vec())).collect();
    let odd: Vec<(&str, Vec<u8>)> = odd.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let error = open_within(&archive(&pickled(tree(module(&[], &odd), 12, &"x".repeat(300)))), &budget).unwrap_err();
    assert!(error.message().ends_with("for the names of its tensors"), "{error}");
    let error = open_pickle(tree(module(&[], &odd), 12, "")).unwrap_err();
    assert!(error.message().contains("modules that share each other"), "{error}");
    check_refused(open_pickle(tree(module(&[], &[(&"x".repeat(5000), pair())]), 2, "")), "a name of ");

    // Nothing but modules: bounded in number.
    check_refused(open_pickle(tree(module(&[], &[]), 30, "")), "modules that share each other, with more than");
    // A few ways to the same module are common.
    assert_eq!(open_pickle(tree(module(&[("w", pair())], &[]), 6, "")).unwrap().tensors().len(), 64);
}

/// Each of these takes minutes where a list is searched for every item of another.
#[test]
fn long_lists_are_gone_through_once() {
    let n = 200_000;
    let buffers: Vec<u8> = (0..n).flat_map(|n| [unicode(&n.to_string()), b"K\x01".to_vec()].concat()).collect();
    let buffers = [b"}(", &buffers[..], b"u"].concat();
    let transient: Vec<u8> = (0..n).flat_map(|n| unicode(&format!("x{n}"))).collect();
    let transient = [b"\x8f(", &transient[..], b"\x90"].concat();
    let net = object(dict(&[
        ("_parameters", dict(&[("w", pair())])),
        ("_buffers", buffers),
        ("_modules", dict(&[])),
        ("_non_persistent_buffers_set", transient),
    ]));
    let checkpoint = open_pickle(net).unwrap();
    assert_eq!((checkpoint.tensors().len(), checkpoint.not_tensors().len()), (1, n));

    // A long state of something that is no module, under many names.
    let state: Vec<u8> = (0..n).flat_map(|_| [unicode("k"), b"N".to_vec()].concat()).collect();
    let odd = [b"cm\nOdd\n)\x81}(", &state[..], b"ubq\x010"].concat();
    let names: Vec<u8> = (0..n).flat_map(|n| [unicode(&n.to_string()), b"h\x01".to_vec()].concat()).collect();
    let modules = [b"}(", &names[..], b"u"].concat();
    let net = object(dict(&[("_parameters", dict(&[("w", pair())])), ("_modules", modules)]));
    assert_eq!(open_pickle([odd, net].concat()).unwrap().not_tensors().len(), n);

    // A long persistent id, and a storage's class with a long name, mentioned again and again.
    let id = [b"(", &b"N".repeat(n)[..], b"tq\x00"].concat();
    check_refused(open_pickle([id, b"h\x00Q".repeat(n)].concat()), "a persistent id of 200000 parts");
    let class = "C".repeat(CLASS_NAME_BYTES_MAX);
    check_refused(open_pickle(dict(&[("w", tensor(storage(&class, "0", 2), 0, &[2], &[1]))])), "a storage whose type");
}

#[test]
fn compressed_tensors_of_all_files_share_one_budget() {
    const N: usize = 1 << 20;
    let floats = tensor(storage("FloatStorage", "0", (N / 4) as i32), 0, &[(N / 4) as i32], &[1]);
    let bytes = deflated(&[("m/data.pkl", &pickled(dict(&[("w", floats)]))), ("m/data/0", &vec![7; N])]);
    let budget = Budget::new(3 * N as u64 + 100_000);
    let mut opened: Vec<Checkpoint> = (0..3).map(|_| open_within(&bytes, &budget).unwrap()).collect();
    let error = open_within(&bytes, &budget).unwrap_err();
    assert!(error.message().ends_with("for its compressed tensors"), "{error}");
    let mut read = [0; 4];
    opened[0].read(opened[0].get("w").unwrap(), 0, &mut read).unwrap();
    assert_eq!(read, [7; 4]);
    // What is let go of can be taken again.
    opened.pop();
    opened.push(open_within(&bytes, &budget).unwrap());
    drop(opened);
    assert_eq!(budget.left(), budget.limit());

    // More than deflate can hold is refused before anything is allocated.
    let mut claims = deflated(&[("m/data.pkl", &pickled(dict(&[])))]);
    let directory = claims.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    claims[directory + 24..directory + 28].copy_from_slice(&(60u32 << 20).to_le_bytes());
    check_refused(open(&claims), "more than they can hold");
}

#[test]
fn views_of_compressed_tensors_share_their_bytes() {
    let floats =
        |offset, shape: &[i32], strides: &[i32]| tensor(storage("FloatStorage", "0", 250_000), offset, shape, strides);
    let values: Vec<u8> = (0..250_000).flat_map(|n| (n as f32).to_le_bytes()).collect();
    let views: Vec<(String, Vec<u8>)> = (0..100).map(|n| (format!("w{n}"), floats(n, &[249_000], &[1]))).collect();
    let views: Vec<(&str, Vec<u8>)> = views.iter().map(|(name, view)| (name.as_str(), view.clone())).collect();
    let budget = Budget::new(2_500_000);
    let bytes = deflated(&[("m/data.pkl", &pickled(dict(&views))), ("m/data/0", &values)]);
    let checkpoint = open_within(&bytes, &budget).unwrap();
    let mut read = [0; 4];
    checkpoint.read(checkpoint.get("w42").unwrap(), 8, &mut read).unwrap();
    assert_eq!(f32::from_le_bytes(read), 44.0);
    drop(checkpoint);
    // Rearranged ones have bytes of their own.
    let views = [("a", floats(0, &[500, 500], &[1, 500])), ("b", floats(0, &[500, 500], &[1, 500]))];
    let bytes = deflated(&[("m/data.pkl", &pickled(dict(&views))), ("m/data/0", &values)]);
    let error = open_within(&bytes, &budget).unwrap_err();
    assert!(error.message().ends_with("for its rearranged tensors"), "{error}");
    let checkpoint = open_within(&bytes, &Budget::new(4_000_000)).unwrap();
    checkpoint.read(checkpoint.get("b").unwrap(), 4, &mut read).unwrap();
    assert_eq!(f32::from_le_bytes(read), 500.0);
}

#[test]
fn tensors_are_in_proportion_to_the_file() {
    // Each is just below what one may repeat; together they are out of all proportion.
    let repeated = || tensor(storage("FloatStorage", "0", 2), 0, &[200 << 20], &[0]);
    assert!(open_pickle(dict(&[("a", repeated())])).is_ok());
    check_refused(open_pickle(dict(&[("a", repeated()), ("b", repeated())])), "share the same");
    // Weights that are tied under a few names are common.
    let tied: Vec<(String, Vec<u8>)> = (0..200).map(|n| (format!("w{n}"), pair())).collect();
    let tied: Vec<(&str, Vec<u8>)> = tied.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    assert_eq!(open_pickle(dict(&tied)).unwrap().tensors().len(), 200);
}

#[test]
fn values_of_a_pickle_are_paid_for_and_given_back() {
    let parameters: Vec<(String, Vec<u8>)> = (0..100).map(|n| (format!("layer.{n}.weight"), pair())).collect();
    let mut parameters: Vec<(&str, Vec<u8>)> = parameters.iter().map(|(name, v)| (name.as_str(), v.clone())).collect();
    parameters.push(("odd", [b"](", &b"K\x01".repeat(20_000)[..], b"e"].concat()));
    let bytes = archive(&pickled(dict(&parameters)));
    let budget = Budget::new(8 << 20);
    let checkpoint = open_within(&bytes, &budget).unwrap();
    let kept = budget.limit() - budget.left();
    assert!((10_000..100_000).contains(&kept), "{kept} bytes for 100 tensors");
    drop(checkpoint);
    assert_eq!(budget.left(), budget.limit());
    let error = open_within(&bytes, &Budget::new(500_000)).unwrap_err();
    assert!(error.message().ends_with("for the values of its pickle"), "{error}");

    // Values, items, texts, globals, tensors and what stands on the stack, at their price.
    let long = unicode(&"t".repeat(10_000));
    let cases: [Vec<u8>; 6] = [
        b"]".repeat(100_000),
        [b"](", &b"N".repeat(1_000_000)[..], b"e"].concat(),
        [&long[..], b"q\x000", &b"h\x00h\x00\x93".repeat(1000)].concat(),
        [b"c_codecs\nencode\nq\x000", &long[..], b"q\x010", &b"h\x00h\x01\x85R".repeat(2000)].concat(),
        [b"(", &b"N".repeat(2_000_000)[..]].concat(),
        b"N\x94".repeat(300_000),
    ];
    for (number, case) in cases.iter().enumerate() {
        let error = open_within(&archive(&pickled(case.clone())), &Budget::new(6 << 20)).unwrap_err();
        assert!(error.message().contains("more memory needed"), "case {number}: {error}");
    }
}

/// Wherever it is asked for, a stop is a stop: nothing else is made of it, and nothing stays charged.
#[test]
fn every_reader_hears_that_it_should_stop() {
    let filler = [b"](", &b"N".repeat(50_000)[..], b"e"].concat();
    let net = module(&[("w", pair())], &[("a", module(&[("w", pair())], &[])), ("odd", filler)]);
    let zip = archive(&pickled(net.clone()));
    let packed = deflated(&[("m/data.pkl", &pickled(net.clone())), ("m/data/0", &[0; 8])]);
    let start = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    let keys = pickled([b"](".to_vec(), unicode("0"), b"e".to_vec()].concat());
    let legacy = [&start[..], &pickled(net), &keys, &2u64.to_le_bytes(), &[0; 8]].concat();
    for bytes in [zip, packed, legacy] {
        let mut n_stopped = 0;
        for patience in 0.. {
            static ASKED: AtomicUsize = AtomicUsize::new(0);
            ASKED.store(0, Ordering::Relaxed);
            let budget = Budget::cancelled_by(64 << 20, move || ASKED.fetch_add(1, Ordering::Relaxed) >= patience);
            match open_within(&bytes, &budget) {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}"),
            }
            assert_eq!(budget.left(), budget.limit());
            n_stopped += 1;
        }
        assert!(n_stopped > 15, "asked {n_stopped} times only");
    }
}

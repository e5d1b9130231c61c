//! Hostile files: everything that a pickle, a zip archive or a legacy container can claim and must not get.

use super::write::forge;
use crate::ErrorKind;
use crate::checkpoint::limits::N_VALUES_MAX;
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Error, Result};

/// More values than a pickle may make.
const TOO_MANY: usize = N_VALUES_MAX + 2;

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

#[test]
fn the_forged_archive_is_one_that_is_read() {
    let checkpoint = open_pickle(dict(&[("w", pair())])).unwrap();
    let tensor = checkpoint.get("w").unwrap();
    let mut bytes = [0; 8];
    checkpoint.read(tensor, 0, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 128, 63, 0, 0, 0, 64]);
}

#[test]
fn calls_are_kept_and_never_made() {
    let witness = tempfile::tempdir().unwrap();
    let command = format!("touch {}", witness.path().join("run").display());
    let calls: [Vec<u8>; 5] = [
        [b"cposix\nsystem\n", &tuple(&[unicode(&command)])[..], b"R"].concat(),
        [b"cos\nsystem\n", &tuple(&[unicode(&command)])[..], b"R"].concat(),
        [b"c__builtin__\neval\n", &tuple(&[unicode("1+1")])[..], b"R"].concat(),
        [b"(", &unicode(&command)[..], b"ios\nsystem\n"].concat(),
        [b"(cos\nsystem\n", &unicode(&command)[..], b"o"].concat(),
    ];
    for call in calls {
        // Where nobody wants its result it does not matter, and is reported.
        let checkpoint = open_pickle(dict(&[("w", pair()), ("evil", call.clone())])).unwrap();
        assert_eq!(checkpoint.tensors().len(), 1);
        let [left_out] = checkpoint.not_tensors() else { panic!("{:?}", checkpoint.not_tensors()) };
        assert_eq!(left_out.name, "evil");
        assert!(left_out.what.ends_with("which is not run"), "{}", left_out.what);
        // Where its result is the model, it is refused by name.
        let error =
            check_refused(open_pickle(call.clone()), "expected a state dict or a module, found an object made by");
        assert!(error.message().ends_with("which is not run"), "{error}");
        // Its result as a storage or a shape is no tensor.
        let forged = tensor(call.clone(), 0, &[2], &[1]);
        check_refused(open_pickle(dict(&[("w", forged)])), "tensor `w`: a tensor without a storage");
    }
    assert_eq!(std::fs::read_dir(witness.path()).unwrap().count(), 0, "nothing may have run");
}

#[test]
fn malformed_pickles_are_refused_where_they_break() {
    let long = |n: usize| b"(".repeat(n);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "the pickle ends before its last opcode"),
        (b"\x80".to_vec(), "the pickle ends before its last opcode"),
        (b"\x80\x02".to_vec(), "the pickle ends before its last opcode"),
        (b"\x80\x02.".to_vec(), "a value is missing on the stack at byte 2"),
        (b"\x80\x02\xff".to_vec(), "unknown opcode 0xff at byte 2"),
        (b"X\xff\xff\xff\xffabc".to_vec(), "the pickle ends"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc".to_vec(), "the pickle ends"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc".to_vec(), "the pickle ends"),
        (b"\x8b\xff\xff\xff\xff".to_vec(), "the pickle ends"),
        (b"cos".to_vec(), "the pickle ends"),
        (b"c\xff\n".to_vec(), "a line that is not UTF-8"),
        (b"Ix\n.".to_vec(), "an integer that is none"),
        (b"Fx\n.".to_vec(), "a float that is none"),
        (b"Sx\n.".to_vec(), "text without quotes"),
        (b"t.".to_vec(), "a mark is missing"),
        (b"(1t.".to_vec(), "a mark is missing"),
        (b"K\x01(\x85.".to_vec(), "a value is missing"),
        (b"K\x01(b.".to_vec(), "a value is missing"),
        (b"K\x01(.".to_vec(), "a value is missing"),
        (b"h\x05.".to_vec(), "nothing in the memo under 5"),
        (b"j\xff\xff\xff\xff.".to_vec(), "nothing in the memo under 4294967295"),
        (b"gx\n.".to_vec(), "a memo index that is no number"),
        (b"q\x05.".to_vec(), "a value is missing"),
        (b"K\x01K\x02a.".to_vec(), "items for a value that holds none"),
        (b"K\x01K\x02K\x03s.".to_vec(), "entries for a value that holds none"),
        (b"}(K\x01u.".to_vec(), "a key without a value"),
        (b"(K\x01d.".to_vec(), "a key without a value"),
        (b"K\x01Q.".to_vec(), "a persistent id that is no tuple"),
        (b")Q.".to_vec(), "a persistent id that is no storage"),
        ([tuple(&[unicode("storage")]), b"Q.".to_vec()].concat(), "a persistent id that is no storage"),
        (
            [tuple(&[unicode("storage"), int(1), int(1), int(1), int(1)]), b"Q.".to_vec()].concat(),
            "a storage without a type",
        ),
        ([storage("FloatStorage", "0", -1), b".".to_vec()].concat(), "storage `0` has -1 elements"),
        ([storage("FloatStorage", &"9".repeat(65), 1), b".".to_vec()].concat(), "a key of more than 64 bytes"),
        (b"Pstorage\n.".to_vec(), "a persistent id in text form"),
        (b"\x82\x01.".to_vec(), "a class by extension number"),
        (b"\x97.".to_vec(), "a buffer outside the pickle"),
        (b"K\x01K\x02\x93.".to_vec(), "a global whose name is no text"),
        (b"(o.".to_vec(), "an object without a class"),
        ([long(TOO_MANY), b".".to_vec()].concat(), "values on the stack"),
        ([b"N2".to_vec(), b"2".repeat(TOO_MANY), b".".to_vec()].concat(), "values on the stack"),
        ([b"]".repeat(TOO_MANY), b".".to_vec()].concat(), "more than 4194304 values"),
        ([b"N".to_vec(), b"\x94".repeat(TOO_MANY), b".".to_vec()].concat(), "values in the memo"),
    ];
    for (pickle, expected) in cases {
        check_refused(open(&archive(&pickle)), expected);
    }
}

#[test]
fn depth_and_sharing_cost_nothing() {
    let n = 1 << 20;
    // A million lists in each other, and a million tuples: no recursion, in reading or in letting go.
    let nested = [b"]q\x00".to_vec(), b"]".repeat(n), b"a".repeat(n)].concat();
    let tuples = [b"N".to_vec(), b"\x85".repeat(n)].concat();
    // Each list holds the one before ten times: 10^200 items if somebody walked them.
    let mut bomb = b"]q\x000".to_vec();
    for level in 1..200u8 {
        bomb.extend_from_slice(&[b']', b'q', level, b'(']);
        bomb.extend_from_slice(&[b'h', level - 1].repeat(10));
        bomb.extend_from_slice(b"e0");
    }
    bomb.extend_from_slice(b"h\xc7");
    // A list and a dict that contain themselves.
    let cyclic = b"]q\x00h\x00a".to_vec();
    let cyclic_dict = [b"}q\x00".to_vec(), unicode("state_dict"), b"h\x00s".to_vec()].concat();
    for value in [nested, tuples, bomb, cyclic, cyclic_dict] {
        let checkpoint = open_pickle(dict(&[("w", pair()), ("odd", value.clone())])).unwrap();
        assert_eq!(checkpoint.tensors().len(), 1);
        check_refused(open_pickle(value), "expected a state dict or a module");
    }
    // Copies of a long list, as `OrderedDict(list)` makes them, are paid for.
    let item = [b"(".to_vec(), unicode("k"), b"Nt".to_vec()].concat();
    let mut copies = [b"(".to_vec(), item.repeat(10_000), b"lq\x00".to_vec()].concat();
    copies.extend(b"ccollections\nOrderedDict\nh\x00\x85R".repeat(5000));
    check_refused(open_pickle(copies), "more than 16777216 references");
}

#[test]
fn views_stay_in_their_storages() {
    let max = i32::MAX;
    let floats = |n| storage("FloatStorage", "0", n);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (tensor(floats(2), 0, &[3], &[1]), "leaves its storage of 2 elements"),
        (tensor(floats(2), 1, &[2], &[1]), "leaves its storage of 2 elements"),
        (tensor(floats(2), 0, &[2], &[2]), "leaves its storage of 2 elements"),
        (tensor(floats(2), 0, &[2, 2], &[0, max]), "leaves its storage"),
        (tensor(floats(2), max, &[1], &[1]), "leaves its storage"),
        (tensor(floats(2), -1, &[1], &[1]), "at the negative offset -1"),
        (tensor(floats(2), 0, &[-1], &[1]), "a tensor whose size makes no sense"),
        (tensor(floats(2), 0, &[2], &[-1]), "a tensor whose strides make no sense"),
        (tensor(floats(2), 0, &[2], &[]), "a tensor of 1 dimensions with 0 strides"),
        (tensor(floats(2), 0, &[1; 65], &[1; 65]), "a tensor whose size makes no sense"),
        (tensor(floats(2), 0, &[max, max, max], &[0, 0, 0]), "more bytes than any file can hold"),
        (tensor(floats(2), 0, &[max, max, max, 0], &[0, 0, 0, 0]), "more bytes than any file can hold"),
        (tensor(floats(2), 0, &[max], &[0]), "repeats a storage of 2 elements"),
        (tensor(floats(3), 0, &[3], &[1]), "storage `0`: expected 12 bytes, found 8"),
        (tensor(floats(max), 0, &[max], &[1]), "storage `0`: expected 8589934588 bytes, found 8"),
        (tensor(storage("FloatStorage", "1", 2), 0, &[2], &[1]), "storage `1` is missing in the archive"),
        (tensor(storage("FloatStorage", "../0", 2), 0, &[2], &[1]), "storage `../0` is missing in the archive"),
        (tensor(storage("QInt8Storage", "0", 8), 0, &[2], &[1]), "`QInt8Storage`, which is not supported"),
        (tensor(storage("UntypedStorage", "0", 8), 0, &[2], &[1]), "an untyped storage, without a dtype"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R".to_vec(), "a tensor with too few arguments"),
    ];
    for (tensor, expected) in cases {
        let error = check_refused(open_pickle(dict(&[("v", pair()), ("w", tensor)])), expected);
        assert!(error.message().contains("tensor `w`: "), "{error}");
    }
    // Odd, but honest.
    for (shape, strides) in [(vec![0, 7], vec![9, 9]), (vec![], vec![]), (vec![3], vec![0]), (vec![1, 2], vec![99, 1])]
    {
        let checkpoint = open_pickle(dict(&[("w", tensor(floats(2), 0, &shape, &strides))])).unwrap();
        let tensor = checkpoint.get("w").unwrap();
        checkpoint.read(tensor, 0, &mut vec![0; tensor.n_bytes() as usize]).unwrap();
        assert_eq!(matches!(tensor.place, Place::Strided { .. }), strides == [0]);
    }
}

/// An object whose state is a dict: a module, when the dict has the right entries.
fn object(state: Vec<u8>) -> Vec<u8> {
    [b"cm\nNet\n)\x81", &state[..], b"b"].concat()
}

fn module(parameters: &[(&str, Vec<u8>)], modules: &[(&str, Vec<u8>)]) -> Vec<u8> {
    object(dict(&[("_parameters", dict(parameters)), ("_buffers", dict(&[])), ("_modules", dict(modules))]))
}

#[test]
fn odd_modules_are_bounded() {
    let leaf = || module(&[("w", pair())], &[]);
    let checkpoint =
        open_pickle(module(&[("v", pair()), ("none", b"N".to_vec())], &[("a", leaf()), ("b", leaf())])).unwrap();
    assert_eq!(checkpoint.in_key_order().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["v", "a.w", "b.w"]);

    // A parameter that some call would have made is missing, and reported.
    let call = b"cos\ngetenv\n)R".to_vec();
    let checkpoint = open_pickle(module(&[("v", call.clone()), ("w", pair())], &[("c", call)])).unwrap();
    let names: Vec<_> = checkpoint.not_tensors().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["v", "c"]);

    // Inside itself.
    let cyclic = [
        b"cm\nNet\n)\x81q\x00".to_vec(),
        dict(&[("_parameters", dict(&[])), ("_modules", dict(&[("m", b"h\x00".to_vec())]))]),
        b"b".to_vec(),
    ]
    .concat();
    check_refused(open_pickle(cyclic), "module `m` contains itself");

    // Deep.
    let mut deep = leaf();
    for _ in 0..300 {
        deep = module(&[], &[("m", deep)]);
    }
    check_refused(open_pickle(deep), "is nested more than 256 deep");

    // Each module holds the one before twice: 2^40 names.
    let mut wide = [leaf(), b"q\x00".to_vec()].concat();
    for level in 1..40u8 {
        let inner = vec![b'h', level - 1];
        let next = module(&[], &[("a", inner.clone()), ("b", inner)]);
        wide = [wide, b"0".to_vec(), next, vec![b'q', level]].concat();
    }
    let error = open_pickle(wide).unwrap_err();
    assert!(["more than", "modules with more than"].iter().any(|what| error.message().contains(what)), "{error}");

    // Long names.
    let long = "n".repeat(3000);
    check_refused(open_pickle(module(&[], &[(&long, module(&[(&long, pair())], &[]))])), "a name of 6001 bytes");
    check_refused(open_pickle(dict(&[(&"n".repeat(5000), pair())])), "a name of 5000 bytes");
}

#[test]
fn a_key_that_stands_twice_has_its_last_value() {
    let scalar = tensor(storage("FloatStorage", "0", 2), 1, &[], &[]);
    let checkpoint = open_pickle(dict(&[("w", pair()), ("v", pair()), ("w", scalar)])).unwrap();
    assert_eq!(checkpoint.in_key_order().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["w", "v"]);
    assert!(checkpoint.get("w").unwrap().shape.is_empty());
}

#[test]
fn damaged_archives_are_refused_where_they_break() {
    let pickle = pickled(dict(&[("w", pair())]));
    let valid = archive(&pickle);
    let find = |what: &[u8]| valid.windows(what.len()).position(|window| window == what).unwrap();
    let directory = find(b"PK\x01\x02");
    let second = directory + 46 + "m/data.pkl".len();
    let end64 = find(b"PK\x06\x06");
    let locator = find(b"PK\x06\x07");
    let edit = |at: usize, bytes: &[u8]| {
        let mut edited = valid.clone();
        edited[at..at + bytes.len()].copy_from_slice(bytes);
        edited
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (valid[..valid.len() - 1].to_vec(), "truncated: no end of the zip archive"),
        (valid[..directory].to_vec(), "truncated: no end of the zip archive"),
        (valid[..40].to_vec(), "truncated: no end of the zip archive"),
        ([&valid[..], b"x"].concat(), "truncated: no end of the zip archive"),
        (edit(locator + 8, &[0xff; 8]), "lies outside the file"),
        (edit(locator + 8, &[0; 8]), "no zip64 end record at 0"),
        (edit(end64 + 32, &[0xff; 8]), "more than any"),
        (edit(end64 + 40, &[0xff; 8]), "more than any"),
        (edit(end64 + 40, &(100u64 << 20).to_le_bytes()), "does not fit before its end record"),
        (edit(end64 + 48, &[0xff; 8]), "does not fit before its end record"),
        (edit(end64 + 32, &9u64.to_le_bytes()), "ends before its last entry"),
        (edit(directory, b"XX"), "an entry does not begin like one"),
        (edit(directory + 8, &[1]), "`m/data.pkl`: is encrypted"),
        (edit(directory + 10, &[93]), "compression method 93"),
        (edit(directory + 10, &[8]), "zip entry `m/data.pkl`: reading it failed"),
        (edit(directory + 20, &[1]), "`m/data.pkl`: stored"),
        (edit(directory + 46, b"\xff"), "a name is not UTF-8"),
        (edit(directory + 46, b"x"), "its own header calls it `m/data.pkl`"),
        (edit(directory + 42, &[0xf0, 0xff, 0xff, 0x7f]), "lies outside the archive"),
        (edit(directory + 42, &[1]), "has no header where the directory says"),
        (edit(directory + 42, &[0xff; 4]), "its size is missing"),
        (edit(directory + 20, &[0, 0, 0, 9, 0, 0, 0, 9]), "expected at most 67108864"),
        (edit(second + 20, &[9, 9, 0, 0, 9, 9, 0, 0]), "expected 2313 bytes at"),
        (edit(directory + 28, &[0xff, 0xff]), "ends before its last entry"),
        (forge(&[("m/data.pkl", &pickle), ("m/data.pkl", &pickle)]), "`m/data.pkl` stands twice"),
        (forge(&[("m/data.pkl", &pickle), ("n/data.pkl", &pickle)]), "2 entries data.pkl, expected one"),
        (forge(&[("m/other", b"x")]), "a zip archive without data.pkl"),
        (forge(&[("word/xdata.pkl", &pickle)]), "a zip archive without data.pkl"),
        ([&b"PK\x05\x06"[..], &[0; 18]].concat(), "a zip archive without data.pkl"),
        (forge(&[("m/data.pkl", &pickle), ("m/constants.pkl", b"x")]), "a TorchScript archive"),
        (forge(&[("m/data.pkl", &pickle), ("m/code/x.py", b"x")]), "a TorchScript archive"),
        (forge(&[("m/data.pkl", &pickle), ("m/byteorder", b"big")]), "big-endian tensors"),
        (forge(&[("m/data.pkl", &pickle), ("m/byteorder", b"pdp\n")]), "byteorder: expected `little`, found `pdp`"),
        (forge(&[("m/data.pkl", &pickle), ("m/byteorder", &[b'x'; 65])]), "65 bytes, expected at most 64"),
    ];
    for (k, (bytes, expected)) in cases.into_iter().enumerate() {
        let result = open(&bytes);
        assert!(result.is_err(), "case {k} ({expected}) was read");
        check_refused(result, expected);
    }
}

#[test]
fn entries_may_not_overlap() {
    // Storages `0` and `1`, and the second's header points at the first's bytes: the name gives it away. With equal
    // names inside the archive that is a duplicate, so the overlap needs a long first entry that holds the second.
    let two = dict(&[
        ("v", tensor(storage("ByteStorage", "0", 200), 0, &[200], &[1])),
        ("w", tensor(storage("ByteStorage", "1", 8), 0, &[8], &[1])),
    ]);
    let inner = forge(&[("m/data/1", &[7; 8])]);
    let mut outer = inner[..].to_vec();
    outer.resize(200, 0);
    let mut bytes = forge(&[("m/data.pkl", &pickled(two)), ("m/data/0", &outer), ("m/data/1", &[7; 8])]);
    assert_eq!(open(&bytes).unwrap().tensors().len(), 2);
    let nested = bytes.windows(4).enumerate().filter(|(_, window)| *window == b"PK\x03\x04").nth(2).unwrap().0;
    let last = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    bytes[last + 42..last + 46].copy_from_slice(&(nested as u32).to_le_bytes());
    check_refused(open(&bytes), "zip entries `m/data/0` and `m/data/1` overlap");
}

#[test]
fn damaged_legacy_files_are_refused() {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let version = b"\x80\x02M\xe9\x03.";
    let machine = |little: &[u8]| pickled(dict(&[("little_endian", little.to_vec())]));
    let keys = pickled([b"](".to_vec(), unicode("0"), b"e".to_vec()].concat());
    let object = pickled(dict(&[("w", pair())]));
    let data = [&2u64.to_le_bytes()[..], &[0, 0, 128, 63, 0, 0, 0, 64]].concat();
    let file = |parts: &[&[u8]]| parts.concat();
    let start = [&magic[..], version, &machine(b"\x88")].concat();
    assert_eq!(open(&file(&[&start, &object, &keys, &data])).unwrap().tensors().len(), 1);

    let view = tuple(&[unicode("1"), int(0), int(1)]);
    let class = b"ctorch\nFloatStorage\n".to_vec();
    let viewed = tuple(&[unicode("storage"), class, unicode("0"), unicode("cpu"), int(2), view]);
    let viewed = pickled(dict(&[("w", tensor([viewed, b"Q".to_vec()].concat(), 0, &[2], &[1]))]));
    let with_source = tuple(&[unicode("module"), b"cm\nNet\n".to_vec(), unicode("net.py"), unicode("class Net: ...")]);
    let state = dict(&[("_parameters", dict(&[("w", pair())])), ("_buffers", dict(&[])), ("_modules", dict(&[]))]);
    let whole = pickled([with_source, b"Q)\x81".to_vec(), state, b"b".to_vec()].concat());
    assert_eq!(open(&file(&[&start, &whole, &keys, &data])).unwrap().tensors()[0].name, "w");

    let cases: Vec<(Vec<u8>, &str)> = vec![
        (magic.to_vec(), "truncated: the pickle ends"),
        (file(&[magic, b"\x80\x02M\xe8\x03."]), "unknown version of the container"),
        (file(&[magic, version, &machine(b"\x89")]), "big-endian tensors"),
        (file(&[&start, &object]), "truncated: the pickle ends"),
        (file(&[&start, &object, b"K\x01."]), "expected a list of storages"),
        (file(&[&start, &object, &keys]), "truncated: expected storage `0` of 8 bytes, found 0"),
        (file(&[&start, &object, &keys, &data[..15]]), "truncated: expected storage `0` of 8 bytes, found 15"),
        (file(&[&start, &object, &keys, &3u64.to_le_bytes(), &[0; 12]]), "expected 2 elements, found 3"),
        (file(&[&start, &object, &keys, &u64::MAX.to_le_bytes(), &[0; 12]]), "expected 2 elements, found"),
        (file(&[&start, &object, b"].", &data]), "tensor `w`: storage `0` is missing in the file"),
        (file(&[&start, &object, b"]K\x01a.", &data]), "has no type or length"),
        (file(&[&start, &viewed, &keys, &data]), "has no type or length"),
        (b"\x80\x02}.".to_vec(), "a plain pickle"),
    ];
    for (bytes, expected) in cases {
        check_refused(open(&bytes), expected);
    }
}

/// Random damage to valid files: refused, or read as tensors that lie in the file; and nothing panics.
#[test]
fn mutated_files_never_panic() {
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
        for _ in 0..1500 {
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

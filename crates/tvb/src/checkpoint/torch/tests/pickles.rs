//! What a pickle can claim.

use super::*;
use crate::checkpoint::Place;
use crate::checkpoint::limits::N_VALUES_MAX;

/// More values than a pickle may make.
const TOO_MANY: usize = N_VALUES_MAX + 2;

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
        ([b"N0".repeat(9 << 20), b"N.".to_vec()].concat(), "more than 16777216 opcodes"),
    ];
    for (pickle, expected) in cases {
        check_refused(open(&archive(&pickle)), expected);
    }
}

/// Of several state dicts one is taken, and the others are named with what takes them.
#[test]
fn state_dicts_beside_the_one_that_is_taken_are_named() {
    let weights = || dict(&[("a", pair()), ("b", pair())]);
    let note = |value: Vec<u8>| open_pickle(value).unwrap().notes().to_vec();
    let few = || dict(&[("scale", pair())]);
    for (taken, other) in [
        ("state_dict", "state_dict_ema"),
        ("model", "ema"),
        ("model", "model_ema"),
        ("model_state_dict", "ema_state_dict"),
    ] {
        for entries in [[(taken, weights()), (other, weights())], [(other, weights()), (taken, weights())]] {
            let notes = note(dict(&entries));
            assert_eq!(notes.len(), 1);
            let end = format!(".pt::{other}");
            assert!(notes[0].contains(&format!("`{taken}` is taken, `{other}` holds another: ")), "{notes:?}");
            assert!(notes[0].ends_with(&end), "{notes:?}");
        }
    }
    // A module beside a dict, one that lies deeper, and three of them.
    let net = module(&[("a", pair())], &[]);
    assert!(note(dict(&[("model", net.clone()), ("ema", net.clone())]))[0].contains("`ema` holds another"));
    let deeper = dict(&[("model", dict(&[("state_dict", weights()), ("ema", weights())])), ("epoch", int(3))]);
    assert!(note(deeper)[0].contains("`model.state_dict` is taken, `model.ema` holds another"));
    let three = note(dict(&[("net", weights()), ("d", weights()), ("g", weights())]));
    assert!(three[0].contains("`net` is taken, `d`, `g` hold others"), "{three:?}");
    // One alone, what an optimizer keeps, a small dict, and the same dict under another name are no other choice.
    let state = dict(&[("state", dict(&[("0", dict(&[("exp_avg", pair())]))]))]);
    for entries in [
        vec![("state_dict", weights())],
        vec![("state_dict", weights()), ("optimizer", state)],
        vec![("state_dict", dict(&[("a", pair()), ("b", pair()), ("c", pair())])), ("loss", few())],
        vec![("state_dict", [weights(), b"q\x05".to_vec()].concat()), ("model", b"h\x05".to_vec())],
        vec![("a", pair()), ("b", pair())],
    ] {
        assert_eq!(note(dict(&entries)), [""; 0]);
    }
    // Asked for by its key there is nothing to say.
    let file = tempfile::Builder::new().suffix(".pt").tempfile().unwrap();
    let both = dict(&[("model", weights()), ("ema", weights())]);
    std::fs::write(file.path(), archive(&pickled(both))).unwrap();
    let options = crate::checkpoint::OpenOptions { key: Some("ema".into()), ..Default::default() };
    assert_eq!(Checkpoint::open_with(file.path(), &options).unwrap().notes(), [""; 0]);
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
    assert!(error.message().contains("modules that share each other"), "{error}");

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

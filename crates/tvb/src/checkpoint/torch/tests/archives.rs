//! What a container can claim: the zip archive and the legacy one.

use super::*;

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

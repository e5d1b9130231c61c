//! A base of other names than the one that a basis was made from.

use super::*;

#[test]
fn the_base_of_an_edit_may_be_wrapped() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let shapes = encoder();
    let (base, tasks) = plain_run(here, &shapes);
    let wrappers: [(&str, &dyn Fn(&str) -> String, &str); 4] = [
        ("ddp", &|name| format!("module.{name}"), "`module.` taken off 6 names"),
        ("compiled", &|name| format!("_orig_mod.{name}"), "`_orig_mod.` taken off 6 names"),
        ("inner", &|name| name.replace("layer.", "layer._orig_mod."), "`_orig_mod.` taken off 4 names"),
        ("body", &|name| format!("bert.{name}"), "`bert.` taken off 6 names"),
    ];
    let plain = tensors(&here.join("plain-coded.safetensors"));
    for (kind, wrap, note) in wrappers {
        let wrapped = renamed(&shapes, wrap);
        write_model(here, &format!("{kind}-base"), &wrapped, &base, 1);
        write_model(here, &format!("{kind}-a"), &wrapped, &tasks[0], 1);
        write_model(here, &format!("{kind}-b"), &wrapped, &tasks[1], 1);
        let own: BTreeMap<_, _> = plain.iter().map(|(name, tensor)| (wrap(name), tensor.clone())).collect();
        let base = format!("--base {kind}-base.safetensors");
        let said = run(here, 0, &format!("add plain-basis {base} -o own.safetensors --overwrite"));
        assert!(said.err.contains(&format!("base: {note}, as the basis has them")), "{}", said.err);
        assert_eq!(tensors(&here.join("own.safetensors")), own, "{kind}");
        // Several outputs at once.
        run(here, 0, &format!("recover plain-basis {base} -o {kind}-recovered"));
        assert!(tensors(&here.join(format!("{kind}-recovered/a.safetensors"))).keys().eq(own.keys()));
        let said = run(here, 0, &format!("verify plain-basis {base} a={kind}-a.safetensors b.safetensors"));
        assert!(said.err.contains("as the basis has them"), "{}", said.err);
        let of = |said: &Said| said.json["errors"].clone();
        let expected = run(here, 0, "verify plain-basis --base base.safetensors a.safetensors b.safetensors");
        assert_eq!(of(&said), of(&expected));

        // The reverse.
        let inputs = format!("a={kind}-a.safetensors b={kind}-b.safetensors");
        run(here, 0, &format!("compress {base} {inputs} -o {kind}-made --method identity --ratio 1"));
        run(here, 0, &format!("add {kind}-made --base base.safetensors -o reverse.safetensors --overwrite"));
        run(here, 0, &format!("add {kind}-made {base} -o own.safetensors --overwrite"));
        let own = tensors(&here.join("own.safetensors"));
        let reverse = tensors(&here.join("reverse.safetensors"));
        let as_own: BTreeMap<_, _> = reverse.into_iter().map(|(name, tensor)| (wrap(&name), tensor)).collect();
        assert_eq!(as_own, own, "{kind}");
        // A task's own head, and another base.
        let head = format!("--head-from a={kind}-a.safetensors norm");
        run(here, 0, &format!("add plain-basis {base} -o head.safetensors --overwrite {head}"));
        let headed = tensors(&here.join("head.safetensors"));
        assert_eq!((headed.len(), &headed[&wrap("norm.weight")].1), (6, &bytes(&tasks[0][5])));
        let said = run(here, 3, &format!("add plain-basis --base {kind}-a.safetensors -o other.safetensors"));
        assert!(said.err.contains("another base expected"), "{}", said.err);
    }
    // Two copies of the model are nobody's choice, and other names stay missing.
    let both = [renamed(&shapes, |name| format!("student.{name}")), renamed(&shapes, |name| format!("teacher.{name}"))];
    write_model(here, "both", &both.concat(), &[base.clone(), base.clone()].concat(), 1);
    let said = run(here, 3, "add plain-basis --base both.safetensors -o other.safetensors");
    assert!(said.err.contains("match the basis's in two ways"), "{}", said.err);
    write_model(here, "fewer", &renamed(&shapes[1..], |name| format!("module.{name}")), &base[1..].to_vec(), 1);
    run(here, 3, "add plain-basis --base fewer.safetensors -o other.safetensors");
}

//! Model cards as the hub reads them: what is known of the base is in them, and nothing that is not true.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tvb_tests::small_models::write_run;

/// Runs a line of words; answers the exit code.
fn run(folder: &Path, line: &str) -> Option<i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(line.split_whitespace()).args(["-qq"]).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("tvb runs").code()
}

/// A base folder at `name` below `top` with these files beside the weights, and one fine-tune `task0.safetensors`.
fn base(top: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = top.join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let run = write_run(top, &[&[30, 40], &[5]], 1, 1);
    std::fs::copy(run.base, folder.join("model.safetensors")).expect("copied");
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("written");
    }
    folder
}

/// The front matter of the card of an edit of such a base, and the text below it.
#[track_caller]
fn card(name: &str, files: &[(&str, &str)], more: &str) -> (String, String) {
    let top = tempfile::tempdir().expect("a folder");
    base(top.path(), name, files);
    let line = format!("add --base {name} --from-checkpoints task0.safetensors -o out {more}");
    assert_eq!(run(top.path(), &line), Some(0), "{line}");
    let card = std::fs::read_to_string(top.path().join("out/README.md")).expect("a card");
    let (front, text) = card.strip_prefix("---\n").and_then(|card| card.split_once("\n---\n")).expect("front matter");
    // An edit is replaced by another, whatever its card says.
    assert_eq!(run(top.path(), &format!("{line} --overwrite")), Some(0));
    (front.to_owned(), text.to_owned())
}

const TAGS: &str = "tags:\n- merge\n- task-arithmetic";

#[test]
fn the_base_is_named_by_the_user_the_cache_or_its_configuration() {
    let config = r#"{"architectures": ["X"], "_name_or_path": "org/by-config"}"#;
    let cached = "hub/models--org--by-cache/snapshots/0123";
    let named = |id: &str| format!("{TAGS}\nbase_model: \"{id}\"\nbase_model_relation: merge");
    let cases = [
        ("plain", vec![], "", TAGS.to_owned()),
        ("plain", vec![], "--base-model org/said", named("org/said")),
        (cached, vec![], "", named("org/by-cache")),
        (cached, vec![("config.json", config)], "--base-model a/b", named("a/b") + "\nlibrary_name: \"transformers\""),
        ("plain", vec![("config.json", config)], "", named("org/by-config") + "\nlibrary_name: \"transformers\""),
        ("plain", vec![("config.json", r#"{"_name_or_path": "/home/me/base"}"#)], "", TAGS.to_owned()),
        // A folder that is there is none of the hub's names.
        ("org/by-config", vec![("config.json", config)], "", format!("{TAGS}\nlibrary_name: \"transformers\"")),
        (
            "plain",
            vec![("open_clip_config.json", "{}"), ("config.json", "{}")],
            "",
            format!("{TAGS}\nlibrary_name: \"open_clip\""),
        ),
        (
            "plain",
            vec![("config.json", r#"{"_diffusers_version": "1"}"#)],
            "",
            format!("{TAGS}\nlibrary_name: \"diffusers\""),
        ),
    ];
    for (name, files, more, expected) in cases {
        let (front, text) = card(name, &files, more);
        assert_eq!(front, expected, "{name} {files:?} {more}");
        assert_eq!(text.contains("is not known"), !front.contains("base_model:"), "{text}");
    }
    let top = tempfile::tempdir().expect("a folder");
    base(top.path(), "base", &[]);
    for id in ["../x", "a/b/c", "a--b", "runs/base/"] {
        let line = format!("add --base base --from-checkpoints task0.safetensors -o out --base-model {id}");
        assert_eq!(run(top.path(), &line), Some(2), "{id}");
    }
}

#[test]
fn licence_and_language_come_from_the_base_card_and_hostile_cards_are_harmless() {
    let own = "---\nlicense: other\nlicense_name: my-licence\nlicense_link: LICENSE\nlanguage:\n- en\n- no\nlibrary_name: open_clip\n\
               pipeline_tag: text-generation\nbase_model: other/base\ntags:\n- x\n---\n# Base\n";
    let (front, _) = card("base", &[("README.md", own), ("config.json", r#"{"architectures": []}"#)], "");
    let expected = "library_name: \"open_clip\"\nlicense: \"other\"\nlicense_name: \"my-licence\"\nlicense_link: \"LICENSE\"\n\
                    language:\n- \"en\"\n- \"no\"\npipeline_tag: \"text-generation\"";
    assert_eq!(front, format!("{TAGS}\n{expected}"));
    let huge = format!("---\nlicense: mit\n---\n{}", "x".repeat(5 << 20));
    let nested = format!("---\nlicense: {}\n---\n", "[".repeat(1 << 20));
    let aliases = "---\na: &a [x, x]\nb: &b [*a, *a]\nlicense: *b\nlanguage: [*a]\n---\n";
    for text in
        [&huge, &nested, aliases, "---\nlicense: mit", "\u{0}", "---\nlicense: |\n  mit\n---\nlicense: \"a\\n---\"\n"]
    {
        assert_eq!(card("base", &[("README.md", text)], "").0, TAGS);
    }
}

#[test]
fn every_command_that_writes_cards_takes_the_name() {
    let top = tempfile::tempdir().expect("a folder");
    let folder = top.path();
    base(folder, "base", &[]);
    let jobs = "[[job]]\nname = \"j\"\nbase = \"base\"\ntasks = [\"task0.safetensors\"]\nbase_model = \"org/said\"\n\
                output = \"b\"\n[[job.after]]\nadd = { output = \"by-batch\" }\n";
    std::fs::write(folder.join("jobs.toml"), jobs).expect("written");
    std::fs::write(folder.join("bad.toml"), jobs.replace("org/said", "no name")).expect("written");
    std::fs::write(folder.join("evaluate"), "echo '{\"a\": 1}'").expect("written");
    let said = "--base-model org/said --base base";
    for (line, card) in [
        ("compress --base base task0.safetensors --bits 4 -o basis".to_owned(), None),
        (format!("add basis {said} -o by-add"), Some("by-add")),
        (format!("recover basis {said} -o recovered"), Some("recovered/task0")),
        (
            format!("sweep add basis {said} --scales 1 --metric a -o swept -- sh evaluate {{checkpoint}}"),
            Some("swept/best"),
        ),
        ("batch jobs.toml".to_owned(), Some("by-batch")),
    ] {
        let code = run(folder, &line);
        assert_eq!(code, Some(0), "{line}");
        let Some(card) = card else { continue };
        let text = std::fs::read_to_string(folder.join(card).join("README.md")).expect("a card");
        assert!(text.contains("base_model: \"org/said\""), "{line}\n{text}");
    }
    assert_ne!(run(folder, "batch bad.toml"), Some(0));
    // Another name is another output.
    std::fs::write(folder.join("jobs.toml"), jobs.replace("org/said", "org/other")).expect("written");
    assert_eq!(run(folder, "batch jobs.toml"), Some(0));
    let text = std::fs::read_to_string(folder.join("by-batch/README.md")).expect("a card");
    assert!(text.contains("base_model: \"org/other\""), "{text}");
}

//! Which device `auto` takes: by the class table, by what was saved, and what a saved file may not be.

use tvb::cost::{
    Believed, Machine, Origin, Rate, Rates, SAVED_BYTES_MAX, Saved, SavedDevice, Stage, Step, Width, Work, choose,
    classes,
};
use tvb_kernels::{AdapterFacts, AdapterKind, Backend};

const GB: u64 = 1_000_000_000;
const ROOM: u64 = 2 * GB;

fn facts(kind: AdapterKind) -> AdapterFacts {
    AdapterFacts {
        index: 0,
        name: "card".to_owned(),
        vendor: "Vendor".to_owned(),
        backend: Backend::Vulkan,
        kind,
        driver: "driver 1.0".to_owned(),
        device_id: 0,
        bus: String::new(),
        twin: None,
        memory_bytes: None,
        max_buffer_bytes: 1 << 31,
        max_binding_bytes: 1 << 31,
        max_workgroups: 65_535,
        max_storage_buffers: 8,
        max_workgroup_bytes: 32_768,
        mappable_storage: false,
    }
}

fn step(stage: Stage, n_columns: usize, width: Width, n_bytes: u64, out_bytes: u64) -> Step {
    Step { stage, n_columns, in_bytes: vec![(width, n_bytes)], out_bytes, again: false, n_times: 1 }
}

fn gram(n_tasks: usize, width: Width, n_bytes: u64) -> Work {
    Work::default().step(step(Stage::Gram, n_tasks, width, n_bytes, 0))
}

/// A Gram pass, and the same bytes again to half as many atoms.
fn mixtures(n_tasks: usize, n_bytes: u64) -> Work {
    let project = step(Stage::Project, n_tasks, Width::Four, n_bytes, n_bytes / 2);
    gram(n_tasks, Width::Four, n_bytes).step(Step { again: true, ..project })
}

fn believed(name: &str, rates: Rates, origin: Origin) -> Believed {
    Believed { name: name.to_owned(), rates, origin }
}

fn saved_on() -> Origin {
    Origin::Saved("2026-11-27".to_owned())
}

/// Rates that are the same at every T: seconds to open and begin, bytes in, out, and kept.
fn flat(open_s: f64, begin_s: f64, from_files: f64, out: f64, kept: Option<f64>) -> Rates {
    let rates =
        Stage::ALL.map(|stage| Rate { stage, width: Width::Four, n_columns: 8, begin_s, from_files, kept, out });
    // Far beyond any T that is asked for, so that nothing falls with it.
    let most = rates.map(|rate| Rate { n_columns: 1024, ..rate });
    Rates { open_s, rates: rates.into_iter().chain(most).collect() }
}

#[test]
fn the_class_table_is_cautious() {
    use AdapterKind::{Discrete, Integrated, Other, Software, Virtual};
    use Width::{Four, Two};
    // Threads, kind, job, whether the adapter is taken.
    let cases = [
        (2, Discrete, gram(8, Four, 4 * GB), false),
        (2, Discrete, gram(8, Four, 1000 * GB), false),
        (2, Discrete, gram(20, Two, 300 * GB), false),
        (2, Discrete, gram(64, Two, 100 * GB), true),
        // The same of little: it takes as long to open the card.
        (2, Discrete, gram(64, Two, GB), false),
        (2, Discrete, gram(64, Four, 100 * GB), false),
        (2, Discrete, gram(128, Four, 100 * GB), true),
        (2, Discrete, gram(256, Four, 10 * GB), true),
        (2, Discrete, gram(256, Two, 10 * GB), true),
        (2, Discrete, gram(256, Four, GB / 2), false),
        // Many cores are faster than a card that may sit behind few lanes.
        (16, Discrete, gram(256, Four, 100 * GB), false),
        (16, Discrete, mixtures(8, 4 * GB), false),
        (2, Discrete, mixtures(8, 4 * GB), false),
        (2, Integrated, gram(256, Two, 1000 * GB), false),
        (2, Virtual, gram(256, Two, 1000 * GB), false),
        (2, Other, gram(256, Two, 1000 * GB), false),
        (2, Software, gram(256, Two, 1000 * GB), false),
        // A disk keeps both waiting.
        (2, Discrete, Work { on_disk: true, ..gram(128, Four, 100 * GB) }, false),
        (2, Discrete, Work::only_on_cpu("f64 is for the CPU").and(gram(256, Two, 1000 * GB)), false),
        (2, Discrete, Work::default(), false),
    ];
    for (n_threads, kind, work, expected) in cases {
        let cpu = believed("cpu", classes::cpu(n_threads), Origin::Class);
        let card = believed("card", classes::adapter(&facts(kind), n_threads), Origin::Class);
        let choice = choose(&work, &cpu, &[(3, card)], ROOM);
        assert_eq!(choice.adapter, expected.then_some(3), "{n_threads} threads, {kind:?}, {work:?}: {choice}");
    }
}

#[test]
fn a_measured_card_is_taken_where_it_gains_a_tenth() {
    // What benches/results has of 16 cores beside an H100: 3.1 GB of eight f32 checkpoints, 0.4 s to open the card.
    let cores = || believed("cpu", flat(0.0, 0.001, 53.0, 1.4, None), saved_on());
    let h100 = |open_s, from_files| believed("H100", flat(open_s, 0.01, from_files, 1.2, Some(400.0)), saved_on());
    let eight = 31 * GB / 10;
    let cases = [
        ("gram", gram(8, Width::Four, eight), h100(0.4, 30.0), false),
        ("compress -m 4", mixtures(8, eight), h100(0.4, 30.0), false),
        (
            "add",
            Work::default().step(step(Stage::Reconstruct, 8, Width::Four, eight, eight / 9)),
            h100(0.4, 30.0),
            false,
        ),
        // Were it fed at twice the cores' rate: little is still not worth opening it, much is.
        ("gram", gram(8, Width::Four, eight), h100(0.4, 106.0), false),
        ("gram", gram(8, Width::Four, 100 * eight), h100(0.4, 106.0), true),
        // A gain of less than a tenth is none.
        ("gram", gram(8, Width::Four, 100 * eight), h100(0.4, 57.0), false),
        ("gram", gram(8, Width::Four, 100 * eight), h100(0.4, 66.0), true),
    ];
    for (what, work, card, expected) in cases {
        let choice = choose(&work, &cores(), &[(0, card)], ROOM);
        assert_eq!(choice.adapter.is_some(), expected, "{what}: {choice}");
        let other = choice.passed_over.as_ref().and_then(|other| other.seconds).expect("two were compared");
        let most = if expected { 0.9 * other } else { other / 0.9 };
        assert!(choice.taken.seconds.is_some_and(|seconds| seconds <= most), "{what}: {choice}");
    }
}

#[test]
fn what_a_device_has_kept_is_not_uploaded_again() {
    let rates = flat(0.0, 0.0, 1.0, 1000.0, Some(100.0));
    let work = mixtures(8, 10 * GB);
    let seconds = |room| rates.seconds(&work, room).expect("every stage is known");
    let cases = [(0, 20.0), (5 * GB, 15.05), (10 * GB, 10.1), (1000 * GB, 10.1)];
    for (room, expected) in cases {
        assert!((seconds(room) - expected).abs() < 0.01, "{room}: {} s, {expected} expected", seconds(room));
    }
}

#[test]
fn rates_are_found_between_and_beyond_what_is_known() {
    let at = |n_columns, from_files| Rate {
        stage: Stage::Gram,
        width: Width::Four,
        n_columns,
        begin_s: 0.0,
        from_files,
        kept: None,
        out: 1.0,
    };
    let rates = Rates { open_s: 0.0, rates: vec![at(64, 4.0), at(16, 16.0)] };
    let cases = [(1, 16.0), (16, 16.0), (32, 8.0), (64, 4.0), (256, 1.0)];
    for (n_columns, expected) in cases {
        let found = rates.at(Stage::Gram, Width::Two, n_columns).expect("known").from_files;
        assert!((found - expected).abs() < 1e-9, "T = {n_columns}: {found}, {expected} expected");
    }
    assert_eq!((rates.at(Stage::Code, Width::Four, 8), rates.seconds(&mixtures(8, GB), 0)), (None, None));
    let halved = rates.clone().with_threads(1, 2).at(Stage::Gram, Width::Four, 64).expect("known");
    assert_eq!((halved.from_files, halved.out), (2.0, 0.5));
    let fed = rates.fed_by(1).at(Stage::Gram, Width::Four, 16).expect("known").from_files;
    assert!(fed < 16.0, "{fed}");
}

#[test]
fn the_line_says_which_and_why() {
    let of = |open_s, from_files, origin: Origin| believed("card", flat(open_s, 0.0, from_files, 1.0, None), origin);
    let cpu = |origin: Origin| believed("cpu", flat(0.0, 0.0, 10.0, 1.0, None), origin);
    let work = gram(8, Width::Four, 10 * GB);
    let cases = [
        (
            choose(&work, &cpu(Origin::Class), &[(0, of(0.5, 10.0, Origin::Class))], 0),
            "device: cpu: 1.0 s expected, 1.5 s on card (class table; `tvb bench --save` measures)",
        ),
        (
            choose(&work, &cpu(saved_on()), &[(0, of(0.1, 100.0, saved_on()))], 0),
            "device: card: 200 ms expected, 1.0 s on cpu (saved 2026-11-27)",
        ),
        (
            choose(&work, &cpu(saved_on()), &[(0, of(0.1, 100.0, Origin::Class))], 0),
            "device: card: 200 ms expected, 1.0 s on cpu (class table, the other saved 2026-11-27; `tvb bench --save` measures)",
        ),
        (choose(&work, &cpu(Origin::Class), &[], 0), "device: cpu: 1.0 s expected"),
        (
            choose(&Work::only_on_cpu("f64 is for the CPU"), &cpu(Origin::Class), &[], 0),
            "device: cpu: f64 is for the CPU",
        ),
    ];
    for (choice, expected) in cases {
        assert_eq!(choice.to_string(), expected);
    }
}

#[test]
fn what_was_saved_is_found_again_and_nothing_else_is_believed() {
    let machine = || Machine::of(&facts(AdapterKind::Discrete));
    let rates = flat(0.3, 0.01, 3.0, 1.0, Some(9.0));
    let mut saved = Saved::none();
    saved.put(SavedDevice::new(Machine { driver: "older".to_owned(), ..machine() }, 2, "2026-11-26", &rates));
    saved.put(SavedDevice::new(machine(), 2, "2026-11-27", &rates));
    assert_eq!(saved.devices.len(), 1, "a device is kept once");
    let read = Saved::from_bytes(&saved.to_bytes()).expect("what was just written");
    let found = read.find(&machine(), 2).expect("the same driver").expect("known");
    assert_eq!((found.rates, found.origin), (rates, saved_on()));
    assert_eq!(read.find(&Machine::cpu("some processor", "AVX2"), 2), Ok(None));
    let other = read.find(&Machine { driver: "newer".to_owned(), ..machine() }, 2).expect_err("another driver");
    assert!(other.contains("driver 1.0") && other.contains("newer"), "{other}");

    let text = String::from_utf8(saved.to_bytes()).expect("text");
    let huge = " ".repeat(SAVED_BYTES_MAX as usize + 1);
    let cases = [
        ("", "no saved bench"),
        ("[]", "no saved bench"),
        (&text[..text.len() / 2], "no saved bench"),
        (&huge, "bytes at most"),
        (&text.replace("\"version\": 1", "\"version\": 2"), "measured by"),
        (&text.replace(tvb::TOOL, "tvb 9.9.9\\u001b[31m"), "measured by"),
        (&text.replace("\"from_files\": 3.0", "\"from_files\": 0.0"), "cannot be one"),
        (&text.replace("\"from_files\": 3.0", "\"from_files\": -3.0"), "cannot be one"),
        (&text.replace("\"from_files\": 3.0", "\"from_files\": 1e300"), "cannot be one"),
        (&text.replace("\"kept\": 9.0", "\"kept\": 0.0"), "cannot be one"),
        (&text.replace("\"begin_s\": 0.01", "\"begin_s\": -1.0"), "cannot be one"),
        (&text.replace("\"n_columns\": 8,", "\"n_columns\": 0,"), "cannot be one"),
        (&text.replace("\"n_threads\": 2", "\"n_threads\": 0"), "cannot be one"),
        (&text.replace("\"gram\"", "\"grams\""), "cannot be one"),
        (&text.replace("\"2026-11-27\"", "\"\\u001b[31mday\""), "cannot be one"),
        (&text.replace("\"open_s\": 0.3", "\"open_s\": null"), "no saved bench"),
    ];
    for (text, expected) in cases {
        let error = Saved::from_bytes(text.as_bytes()).expect_err(expected);
        assert!(error.contains(expected) && !error.contains('\u{1b}'), "{error:?}, {expected:?} expected");
    }
}

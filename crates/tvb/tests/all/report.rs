//! The report of a basis: one page, nothing loaded from elsewhere, and whatever tasks are called stays text.

use std::path::PathBuf;
use tvb::basis::Basis;
use tvb::checkpoint::Checkpoint;
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::report::basis_report;
use tvb::pass::Runtime;
use tvb::progress::Silent;
use tvb::solve::Method;
use tvb_kernels::{CpuEngine, Engine};
use tvb_tests::small_models::write_run;

const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";

fn basis(folder: &std::path::Path, method: Method) -> Basis {
    let run = write_run(folder, &[&[300], &[20, 30], &[7]], 3, 1);
    let task = |(index, path): (usize, &PathBuf)| Task {
        name: if index == 0 { HOSTILE.into() } else { format!("task{index}") },
        checkpoint: Checkpoint::open(path).expect("a task"),
    };
    let tasks = run.tasks.iter().enumerate().map(task).collect();
    let plan = Plan::new(Checkpoint::open(&run.base).expect("a base"), tasks, &Selection::default()).expect("a plan");
    let options = CompressOptions::mixtures(folder.join("basis")).method(method).atoms(2);
    let runtime = Runtime::on_cpu(1, 64 << 20);
    compress(&plan, &options, &runtime, &Silent).expect("a basis").basis
}

fn on_cpu() -> Engine {
    Engine::Cpu(CpuEngine::new())
}

/// Opening and closing tags of one kind.
fn tags(page: &str, tag: &str) -> (usize, usize) {
    let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
    (opened, page.matches(&format!("</{tag}>")).count())
}

#[test]
fn a_report_is_one_page_of_plots() {
    for method in [Method::Pca, Method::Random { seed: 1 }] {
        let top = tempfile::tempdir().expect("a folder");
        let basis = basis(top.path(), method);
        let page = basis_report(&basis, &on_cpu(), &|_| true).expect("a page").0;
        for tag in ["svg", "figure", "table", "tr", "td", "p", "h2", "title", "body", "html", "div"] {
            let (opened, closed) = tags(&page, tag);
            assert_eq!(opened, closed, "{tag}");
        }
        assert!(tags(&page, "svg").0 >= 6);
        for heading in [
            "What each task loses",
            "How alike the tasks are",
            "Where the change lies",
            "How many directions the change has there",
            "Other sizes and methods",
        ] {
            assert!(page.contains(heading), "{heading}");
        }
        for loaded in ["<script", "<link", "@import", "url(", "<img", "src=\"", "href="] {
            assert!(!page.contains(loaded), "{loaded}");
        }
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;"));
    }
}

#[test]
fn a_report_that_takes_long_can_be_stopped() {
    let top = tempfile::tempdir().expect("a folder");
    let basis = basis(top.path(), Method::Pca);
    assert_eq!(basis_report(&basis, &on_cpu(), &|_| false).expect_err("stopped").kind(), tvb::ErrorKind::Interrupted);
}

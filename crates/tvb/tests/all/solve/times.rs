//! How long each method takes, in seconds of processor time. Nothing is asserted about time; run it in release and read:
//! `cargo test --release -p tvb --test all -- solve::times --ignored --nocapture`
//! (`TVB_TIMES=20,256` chooses the numbers of tasks.)

use super::cases::{gaussian, gram_of, scaled, sharing};
use tvb::solve::{AeOptions, Method, SolveOptions, TableOptions, ae, assess, plan_table, solve};

/// Seconds this thread has run, other work on the machine not counted, where the system tells (Linux).
fn seconds() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).map_or(f64::NAN, |ns| ns * 1e-9)
}

#[test]
#[ignore = "measures, does not check"]
fn every_method() {
    let sizes = std::env::var("TVB_TIMES").unwrap_or_else(|_| "20,256,1024".into());
    let quiet = |_| true;
    for n_tasks in sizes.split(',').map(|n| n.parse::<usize>().expect("a number of tasks")) {
        let v = scaled(sharing(2 * n_tasks + 200, n_tasks, 0.1, |_| 1.0, 1), |t| 1.0 + (t % 7) as f64 * 0.2);
        let gram = gram_of(&v);
        let start = seconds();
        let bound = gram.spectral_bound(n_tasks / 2);
        println!("T = {n_tasks}: spectrum {:.3} s", seconds() - start);
        for method in Method::all().iter().filter(|method| method.name() != "random") {
            let n_atoms = method.fixed_atoms(n_tasks).unwrap_or(n_tasks / 2);
            let start = seconds();
            let found = solve(&gram, method, &SolveOptions::atoms(n_atoms), &quiet).expect("solved");
            let solved = seconds() - start;
            let start = seconds();
            let assessed = assess(&gram, &found).expect("assessed");
            println!(
                "T = {n_tasks} M = {n_atoms} {:9} solve {solved:9.4} s, assess {:7.4} s, loss/bound {:.4} sum cos {:.4} cond {:.1e} {}",
                method.name(),
                seconds() - start,
                assessed.loss / bound,
                assessed.sum.cosine,
                assessed.condition,
                found.notes.join("; ")
            );
        }
        // Where no positive vector lies in the top eigenspace, 'exact' has to search.
        let gram = gram_of(&gaussian(2 * n_tasks, n_tasks, 1));
        let start = seconds();
        let found = solve(&gram, &Method::parse("exact").expect("a method"), &SolveOptions::atoms(n_tasks / 4), &quiet);
        let notes = found.expect("solved").notes;
        println!("T = {n_tasks} exact by search: {:.3} s {}", seconds() - start, notes.join("; "));
    }
}

#[test]
#[ignore = "measures, does not check"]
fn training_and_table() {
    let quiet = |_| true;
    let gram = gram_of(&sharing(300, 20, 0.1, |_| 1.0, 1));
    let start = seconds();
    ae::train(gram.matrix(), 10, &AeOptions::paper(), &[], &quiet).expect("trained");
    println!("ae, 6000 steps, T = 20, M = 10: {:.3} s", seconds() - start);
    let methods: Vec<Method> = Method::all();
    let all: Vec<usize> = (1..=20).collect();
    let start = seconds();
    let options = TableOptions { n_parameters: Some(1 << 20), ..TableOptions::new(SolveOptions::atoms(1)) };
    let rows = plan_table(&gram, &methods, &all, &options, &quiet).expect("a table");
    println!("plan, every method, M = 1 to 20: {} rows in {:.3} s", rows.len(), seconds() - start);
}

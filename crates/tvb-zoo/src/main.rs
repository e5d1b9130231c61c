use tvb_zoo::{data::Split, tasks::*, *};
fn main() {
    let t = std::time::Instant::now();
    let mut sched = train::BASE;
    if let Ok(n) = std::env::var("BASE_STEPS") {
        sched.n_steps = n.parse().unwrap();
    }
    let base = train::train_base(&sched, &mut |s, l| {
        if s % 500 == 0 || s == 50 {
            eprintln!("{s} {l} {:?}", t.elapsed())
        }
    })
    .unwrap();
    let all: Vec<&'static TaskSpec> = TASKS.iter().collect();
    let m = model::Model::new(&base).unwrap();
    let te = std::time::Instant::now();
    let z = eval::accuracies(&m, &all, Split::Test).unwrap();
    eprintln!("eval {:?}", te.elapsed());
    for a in &z {
        println!("{} {:.3}", a.task, a.value);
    }
}

//! `auto`: the device that does a job soonest, opened.

use super::runtime::{Runtime, usual_device_memory};
use crate::cost::{Believed, Choice, Machine, Origin, Saved, Work, choose, classes};
use tvb_kernels::{AdapterFacts, AdapterKind, Adapters, Backend, CpuEngine, DeviceChoice, DeviceSetup};

/// What `auto` chooses by, beside the job.
#[derive(Clone, Debug)]
pub struct Auto {
    /// The graphics interface to look for adapters on; all but GL where `None`.
    pub backend: Option<Backend>,
    /// Threads that compute and read.
    pub n_threads: usize,
    /// What may stay in a GPU's own memory between passes, in bytes; what is usual of each where `None`.
    pub device_memory_bytes: Option<u64>,
    /// The processor's name, as in what was saved.
    pub processor: String,
    /// Whether software adapters are taken for cards: to try the choice where there is none.
    pub with_software: bool,
    /// What was measured of this machine.
    pub saved: Saved,
}

impl Auto {
    /// What is believed of the CPU engine; a word where what was saved of it is of no use.
    pub fn cpu(&self) -> (Believed, Option<String>) {
        let instruction_set = CpuEngine::new().instruction_set();
        let machine = Machine::cpu(&self.processor, instruction_set);
        let (found, word) = match self.saved.find(&machine, self.n_threads) {
            Ok(found) => (found, None),
            Err(word) => (None, Some(word)),
        };
        let rates = || classes::cpu(self.n_threads);
        let (rates, origin) = found.map_or_else(|| (rates(), Origin::Class), |found| (found.rates, found.origin));
        (Believed { name: format!("cpu ({instruction_set}, {} threads)", self.n_threads), rates, origin }, word)
    }

    /// The same of an adapter.
    pub fn adapter(&self, facts: &AdapterFacts) -> (Believed, Option<String>) {
        let (found, word) = match self.saved.find(&Machine::of(facts), self.n_threads) {
            Ok(found) => (found, None),
            Err(word) => (None, Some(word)),
        };
        let rates = || classes::adapter(facts, self.n_threads);
        let (rates, origin) = found.map_or_else(|| (rates(), Origin::Class), |found| (found.rates, found.origin));
        (Believed { name: facts.to_string(), rates, origin }, word)
    }

    /// Whether `auto` may take this adapter at all.
    pub fn may_take(&self, facts: &AdapterFacts) -> bool {
        self.with_software || facts.kind != AdapterKind::Software
    }

    /// What may stay in the memory of the largest of these that may be taken, in bytes.
    pub fn room(&self, adapters: &[AdapterFacts]) -> u64 {
        let usual = adapters.iter().filter(|facts| self.may_take(facts)).map(usual_device_memory);
        self.device_memory_bytes.or(usual.max()).unwrap_or(0)
    }

    /// What would be taken for `work` and why; `None` where there is nothing to choose. Nothing is opened. The lines are as of
    /// [`Runtime::open_for`].
    pub fn choice(&self, work: &Work) -> (Option<Choice>, Vec<String>) {
        let (choice, adapters, words) = self.choose(work);
        (Some(choice).filter(|choice| is_one(choice, adapters.as_ref())), words)
    }

    /// Chooses for `work`; the adapters are those that were looked at, and the words what was saved in vain.
    fn choose(&self, work: &Work) -> (Choice, Option<Adapters>, Vec<String>) {
        let (cpu, word) = self.cpu();
        let mut words: Vec<String> = word.into_iter().collect();
        // To ask the drivers for their adapters takes a part of a second itself. So it is asked first whether any adapter that was
        // measured here, or the best of the class table, would do the job sooner.
        let mut conceivable = self.saved.adapters(self.n_threads, self.with_software);
        conceivable.push(Believed {
            name: "any GPU".to_owned(),
            rates: classes::best(self.n_threads),
            origin: Origin::Class,
        });
        let conceivable: Vec<(usize, Believed)> = conceivable.into_iter().enumerate().collect();
        let choice = choose(work, &cpu, &conceivable, self.device_memory_bytes.unwrap_or(u64::MAX));
        if choice.adapter.is_none() {
            return (choice, None, words);
        }
        let adapters = Adapters::find(self.backend);
        let mut candidates = Vec::new();
        for (at, facts) in adapters.facts().iter().enumerate().filter(|(_, facts)| self.may_take(facts)) {
            let (believed, word) = self.adapter(facts);
            words.extend(word);
            candidates.push((at, believed));
        }
        let room = self.room(&adapters.facts());
        (choose(work, &cpu, &candidates, room), Some(adapters), words)
    }
}

impl Runtime {
    /// Opens the device that does `work` soonest. One that cannot be opened is passed over for the CPU engine, with a warning; one whose
    /// kernels fail their test when a pass first uses them leaves that pass to it. The lines are for whoever runs the job: what was
    /// saved of this machine and is of no use now.
    pub fn open_for(work: &Work, auto: &Auto) -> (Runtime, Vec<String>) {
        let (choice, adapters, words) = auto.choose(work);
        let cpu = || Runtime::on(tvb_kernels::Opened::cpu().engine);
        let mut runtime = match (choice.adapter, &adapters) {
            (Some(at), Some(adapters)) => match adapters.open(&DeviceChoice::Index(at), DeviceSetup::default()) {
                Ok(opened) => Runtime::on(opened.engine),
                Err(error) => {
                    let warning = format!("{} is not used, the CPU engine is: {error}", choice.taken.name);
                    Runtime { warning: Some(warning), ..cpu() }
                }
            },
            _ => cpu(),
        };
        runtime.choice = Some(choice).filter(|choice| is_one(choice, adapters.as_ref()));
        let runtime = runtime.with_threads(auto.n_threads);
        let runtime = match auto.device_memory_bytes {
            Some(n_bytes) => runtime.with_device_memory(n_bytes),
            None => runtime,
        };
        (runtime, words)
    }
}

/// Whether there was anything to choose: not where adapters were looked for and none was found.
fn is_one(choice: &Choice, adapters: Option<&Adapters>) -> bool {
    adapters.is_none() || choice.adapter.is_some() || choice.passed_over.is_some()
}

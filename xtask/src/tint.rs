//! `cargo xtask tint`: every shader variant through Tint, the WGSL compiler of Chromium, which is stricter than wgpu's: it proves
//! that barriers are reached by all threads, and keeps to the grammar.
//!
//! A page is served on this machine to a headless Chromium, which compiles every variant and answers with the messages. Among
//! them are those of a shader that is wrong on purpose, so that a browser that checks nothing cannot pass.

mod serve;

use crate::process::{Result, cargo, run as run_command, succeeds, target};
use serve::{Answer, ask};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Names of Chromium on Linux.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// How long the browser may take for modules alone; for pipelines, which are compiled for the processor, so long each.
const MODULES: Duration = Duration::from_secs(120);
const PIPELINE: Duration = Duration::from_secs(20);

/// naga takes this, and no WGSL compiler should: a barrier that some threads do not reach.
const WRONG: &str = "@compute @workgroup_size(64)\nfn wrong(@builtin(local_invocation_index) thread: u32) {\n    \
                     if (thread < 3u) {\n        workgroupBarrier();\n    }\n}\n";
const WRONG_NAME: &str = "wrong on purpose";

/// Compile every shader variant with Chromium's WebGPU (Tint), without a window
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// The browser, where it is not on the path as chromium or google-chrome
    #[arg(long, value_name = "PATH", env = "CHROMIUM")]
    chromium: Option<PathBuf>,
    /// Make a pipeline of every variant too, which takes minutes; without this, one of each entry point
    #[arg(long)]
    pipelines: bool,
}

/// One variant.
struct Shader {
    name: String,
    source: String,
}

/// The browser, where there is one.
pub(crate) fn browser(args: &Args) -> Option<PathBuf> {
    match &args.chromium {
        Some(path) => Some(path.clone()),
        None => PROGRAMS.into_iter().find(|name| succeeds(name, &["--version"])).map(PathBuf::from),
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let browser = browser(args).ok_or("no Chromium. Debian, Ubuntu: `apt-get install chromium`; or --chromium PATH")?;
    let shaders = shaders()?;
    let mut seen = Vec::new();
    let mut jobs = Vec::new();
    for shader in &shaders {
        let entry = shader.name.split('-').next().unwrap_or_default();
        let has_pipeline = args.pipelines || !seen.contains(&entry);
        seen.push(entry);
        jobs.push(serde_json::json!({
            "name": shader.name, "source": shader.source, "entry": entry, "pipeline": has_pipeline,
        }));
    }
    let n_pipelines = jobs.iter().filter(|job| job["pipeline"] == true).count();
    jobs.push(serde_json::json!({ "name": WRONG_NAME, "source": WRONG, "entry": "wrong", "pipeline": false }));
    let started = Instant::now();
    let answer = compile(&browser, &jobs, MODULES + PIPELINE * n_pipelines as u32)?;
    judge(&answer, shaders.len() + 1)?;
    eprintln!(
        "tint: {} variants compiled without a message, {n_pipelines} pipelines made, {:.0} s ({})",
        shaders.len(),
        started.elapsed().as_secs_f64(),
        answer.adapter,
    );
    Ok(())
}

/// Whether all were compiled, and nothing was said but of the one that is wrong.
fn judge(answer: &Answer, n_wanted: usize) -> Result<()> {
    if let Some(problem) = &answer.failed {
        return Err(format!("the browser could not compile: {problem}"));
    }
    if answer.n_compiled != n_wanted {
        return Err(format!("the browser compiled {} variants: expected {n_wanted}", answer.n_compiled));
    }
    let (wrong, others): (Vec<_>, Vec<_>) = answer.messages.iter().partition(|message| message.starts_with(WRONG_NAME));
    if wrong.is_empty() {
        return Err("the browser takes a barrier that some threads do not reach: it checks nothing".to_owned());
    }
    if others.is_empty() { Ok(()) } else { Err(others.into_iter().cloned().collect::<Vec<_>>().join("\n")) }
}

/// Writes all variants and reads them again, in the order of their names.
fn shaders() -> Result<Vec<Shader>> {
    let folder = target().join("shaders");
    let _ = std::fs::remove_dir_all(&folder);
    let mut write = cargo(["run", "-q", "--locked", "-p", "tvb-kernels", "--example", "shaders", "--"]);
    run_command(write.arg(&folder))?;
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
        paths.push(entry.map_err(|error| failed(&folder, error))?.path());
    }
    paths.sort();
    let read = |path: PathBuf| {
        let source = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        Ok(Shader { name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), source })
    };
    let shaders = paths.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    if shaders.is_empty() { Err(format!("{}: no shaders", folder.display())) } else { Ok(shaders) }
}

/// Has the browser compile the jobs.
fn compile(browser: &Path, jobs: &[serde_json::Value], limit: Duration) -> Result<Answer> {
    let profile = target().join("chromium-profile");
    let _ = std::fs::remove_dir_all(&profile);
    let answer = ask(jobs, limit, |address| {
        let mut command = Command::new(browser);
        command.args(["--headless=new", "--no-first-run", "--enable-unsafe-webgpu", "--enable-features=Vulkan"]);
        // The browser's own software adapter: the same compiler on every machine. In containers there is no other sandbox.
        command.args(["--use-webgpu-adapter=swiftshader", "--no-sandbox", "--disable-dev-shm-usage"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg(format!("http://{address}/"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    });
    let _ = std::fs::remove_dir_all(&profile);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_a_missing_variant_and_a_browser_that_checks_nothing_fail() {
        let wrong = format!("{WRONG_NAME}:4: 'workgroupBarrier' must only be called from uniform control flow");
        let answer = |messages: &[&str]| Answer {
            adapter: "x".to_owned(),
            n_compiled: 3,
            failed: None,
            messages: messages.iter().map(|&message| message.to_owned()).collect(),
        };
        assert!(judge(&answer(&[&wrong]), 3).is_ok());
        assert!(judge(&answer(&[]), 3).is_err_and(|error| error.contains("checks nothing")));
        assert!(judge(&answer(&[&wrong]), 4).is_err_and(|error| error.contains("expected 4")));
        assert_eq!(judge(&answer(&[&wrong, "gram:7: no"]), 3), Err("gram:7: no".to_owned()));
        assert!(judge(&Answer { failed: Some("no adapter".to_owned()), ..answer(&[&wrong]) }, 3).is_err());
    }
}

//! A page for one browser: served on this machine alone, until the browser has answered.

use crate::process::{Result, typed};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("page.html");

/// The most that an answer may be, in bytes.
const MOST_BYTES: u64 = 16 << 20;

/// What the browser says.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) adapter: String,
    pub(super) n_compiled: usize,
    pub(super) failed: Option<String>,
    pub(super) messages: Vec<String>,
}

/// Starts a browser on the page and waits for its answer; the browser is ended in any case.
pub(super) fn ask(
    jobs: &[serde_json::Value],
    limit: Duration,
    browser: impl FnOnce(SocketAddr) -> Command,
) -> Result<Answer> {
    let failed = |error: std::io::Error| format!("serving a page on this machine: {error}");
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let jobs = serde_json::Value::from(jobs).to_string();
    let mut command = browser(listener.local_addr().map_err(failed)?);
    let mut child = command.spawn().map_err(|error| format!("{}: cannot start: {error}", typed(&command)))?;
    let started = Instant::now();
    let answer = loop {
        match listener.accept() {
            // A request that makes no sense is somebody else's.
            Ok((stream, _)) => {
                if let Ok(Some(answer)) = serve(stream, &jobs) {
                    break serde_json::from_slice(&answer).map_err(|error| format!("the browser's answer: {error}"));
                }
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
        if started.elapsed() > limit {
            break Err(format!("no answer in {:.0} s from {}", limit.as_secs_f64(), typed(&command)));
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    answer
}

/// Answers one request; the body of the one that is the browser's answer.
fn serve(stream: TcpStream, jobs: &str) -> std::io::Result<Option<Vec<u8>>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let request: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut n_bytes = 0u64;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            n_bytes = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = Vec::new();
    reader.by_ref().take(n_bytes.min(MOST_BYTES)).read_to_end(&mut body)?;
    let words: Vec<&str> = request.iter().map(String::as_str).collect();
    let (status, kind, text) = match words[..] {
        ["GET", "/", _] => ("200 OK", "text/html; charset=utf-8", PAGE),
        ["GET", "/jobs", _] => ("200 OK", "application/json", jobs),
        ["POST", "/answer", _] => ("200 OK", "text/plain", ""),
        _ => ("404 Not Found", "text/plain", ""),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes())?;
    stream.write_all(text.as_bytes())?;
    stream.flush()?;
    Ok(matches!(words[..], ["POST", "/answer", _]).then_some(body))
}

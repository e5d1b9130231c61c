//! Bookmarks on disk: a folder inside the partial output that tells the next run where this one stopped.
//!
//! A bookmark's file name carries a digest of everything the pass depends on: the input files as they were when they were
//! opened (path, length, time of change, inode), the tensors, the device, and the pass's own recipe. A run with any other
//! inputs or options does not find it. The file ends in the digest of all before it, and appears by a rename.

use crate::basis::gram_file;
use crate::checkpoint::{Budget, FileStamp, read_capped_within};
use crate::columns::plan::Plan;
use crate::digest::{Digest, TensorDigests};
use crate::error::{Error, Result};
use crate::ops::Grams;
use crate::pass::bookmark::{Bookmark, Bookmarks, PassName};
use crate::pass::{Runtime, Span, SpanSums, TensorSums};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tvb_kernels::Engine;

/// The folder's name inside a partial basis.
pub const FOLDER: &str = "bookmarks";
/// Seconds between two bookmarks, in place of `EVERY_SECONDS`; for tests.
pub const EVERY_VARIABLE: &str = "TVB_BOOKMARK_SECONDS";
/// Seconds of work that a kill may cost.
const EVERY_SECONDS: f64 = 30.0;
const MAGIC: &[u8] = b"tvb-bookmark 4\n";
/// Larger files are not ours: sums and digests together stay far below.
const MAX_BYTES: u64 = 4 << 30;

/// The bookmarks of one output.
#[derive(Debug)]
pub struct BookmarkFolder {
    folder: PathBuf,
    /// Of the inputs and the device.
    key: Digest,
    every: Duration,
    last: Instant,
    /// For what is read.
    budget: Budget,
}

impl BookmarkFolder {
    /// For an output made from `plan`; the folder is made when the first bookmark is due.
    pub fn new(folder: PathBuf, plan: &Plan, runtime: &Runtime) -> BookmarkFolder {
        let seconds = std::env::var(EVERY_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(EVERY_SECONDS);
        // Not the number of threads: the bits do not depend on it, so a run with another may resume.
        let device = match &runtime.engine {
            Engine::Cpu(engine) => engine.instruction_set().to_string(),
            Engine::Gpu(engine) => engine.facts().to_string(),
        };
        let chunk_size = runtime.chunk_size(plan);
        let device = format!("{device} {} {}", chunk_size.n_rows, chunk_size.n_blocks);
        BookmarkFolder {
            folder,
            key: Digest::of_digests([inputs_key(plan), Digest::of(device.as_bytes())]),
            every: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(30)),
            last: Instant::now(),
            budget: runtime.budget.clone(),
        }
    }

    /// The Gram matrices that an interrupted run finished, where it did.
    pub fn find_grams(&self) -> Option<Grams> {
        let path = self.grams_path();
        is_plain_file(&path).then(|| gram_file::read_within(&path, &self.budget).ok()).flatten()
    }

    /// Keeps finished Gram matrices that took `elapsed`, where forming them again would cost more than a bookmark may.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    pub fn put_grams(&self, grams: &Grams, elapsed: Duration) -> Result<()> {
        if elapsed >= self.every {
            self.write(&self.grams_path(), &gram_file::to_bytes(grams)?)?;
        }
        Ok(())
    }

    fn grams_path(&self) -> PathBuf {
        self.path("gram", "safetensors", Digest::default())
    }

    /// Whether an interrupted run would go on from here.
    pub fn holds_any(&self) -> bool {
        std::fs::read_dir(&self.folder).is_ok_and(|entries| entries.flatten().any(|entry| is_bookmark(&entry.path())))
    }

    /// Removes everything that lies beside the bookmarks: parts of an output that cannot be resumed.
    ///
    /// # Errors
    /// Failed: the system refuses.
    pub fn clear_beside(&self) -> Result<()> {
        let Some(partial) = self.folder.parent() else { return Ok(()) };
        let io = |error: std::io::Error| Error::io("clearing", partial, &error);
        for entry in std::fs::read_dir(partial).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path != self.folder {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the bookmarks: the output is complete, or has failed. Beside a Gram file a folder of this name may be a user's,
    /// so only what has the name of a bookmark goes, and the folder when it is empty.
    ///
    /// # Errors
    /// Failed: the system refuses.
    pub fn remove(&self) -> Result<()> {
        let io = |error: std::io::Error| Error::io("removing", &self.folder, &error);
        let entries = match std::fs::symlink_metadata(&self.folder) {
            Ok(found) if found.is_dir() => std::fs::read_dir(&self.folder).map_err(io)?,
            _ => return Ok(()),
        };
        let mut is_empty = true;
        for entry in entries {
            let path = entry.map_err(io)?.path();
            if is_bookmark(&path) {
                std::fs::remove_file(&path).map_err(|error| Error::io("removing", &path, &error))?;
            } else {
                is_empty = false;
            }
        }
        if is_empty { std::fs::remove_dir(&self.folder).map_err(io) } else { Ok(()) }
    }

    fn path(&self, stem: &str, extension: &str, recipe: Digest) -> PathBuf {
        let key = Digest::of_digests([self.key, recipe]);
        self.folder.join(format!("{stem}-{:032x}.{extension}", key.0))
    }

    fn bookmark_path(&self, pass: PassName, recipe: Digest) -> PathBuf {
        let stem = match pass {
            PassName::Gram => "gram",
            PassName::Atoms => "atoms",
            PassName::Codes => "codes",
        };
        self.path(stem, "bookmark", recipe)
    }

    /// Writes a file that is there whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let io = |error: std::io::Error| Error::io("writing", path, &error);
        if std::fs::symlink_metadata(&self.folder).is_ok_and(|found| !found.is_dir()) {
            return Err(Error::rejected(format!(
                "{}: a folder for bookmarks expected, something else found",
                self.folder.display()
            ))
            .hint("move it away, or choose another output"));
        }
        std::fs::create_dir_all(&self.folder).map_err(io)?;
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        remove(&new)?;
        let mut file = File::create_new(&new).map_err(io)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
        std::fs::rename(&new, path).map_err(io)
    }
}

impl Bookmarks for BookmarkFolder {
    fn find(&mut self, pass: PassName, recipe: Digest) -> Option<Bookmark> {
        let path = self.bookmark_path(pass, recipe);
        if !is_plain_file(&path) {
            return None;
        }
        let (bytes, mut charge) = read_capped_within(&path, "a bookmark", MAX_BYTES, &self.budget).ok()?;
        // Nothing in it takes more room than its bytes.
        charge.take(bytes.len() as u64).ok()?;
        parse(&bytes)
    }

    fn is_due(&self) -> bool {
        self.last.elapsed() >= self.every
    }

    fn put(&mut self, pass: PassName, recipe: Digest, bookmark: &Bookmark) -> Result<()> {
        self.write(&self.bookmark_path(pass, recipe), &to_bytes(bookmark))?;
        self.last = Instant::now();
        Ok(())
    }
}

/// A digest that nobody else has had: nothing tells whether memory still holds what it held, so no run goes on with what another has
/// made of it.
pub(super) fn never_again() -> Digest {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Digest::of(format!("{} {} {count}", since.as_nanos(), std::process::id()).as_bytes())
}

/// The digest of a plan and of its files as they were when they were opened: the same as long as nothing writes to them. Of columns
/// in memory another one each time.
pub fn inputs_key(plan: &Plan) -> Digest {
    let mut key = Vec::new();
    let mut field = |bytes: &[u8]| {
        key.extend((bytes.len() as u64).to_le_bytes());
        key.extend_from_slice(bytes);
    };
    field(crate::TOOL.as_bytes());
    for column in 0..plan.n_columns() {
        let checkpoint = plan.column_checkpoint(column);
        let task = column.checked_sub(1).and_then(|task| plan.tasks.get(task));
        field(task.map_or(b"", |task| task.name.as_bytes()));
        field(checkpoint.path().as_os_str().as_encoded_bytes());
        for file in checkpoint.files() {
            let FileStamp { len, modified, inode } = file.stamp();
            let modified = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            field(file.path.as_os_str().as_encoded_bytes());
            field(&len.to_le_bytes());
            field(&modified.map_or(0, |since| since.as_nanos()).to_le_bytes());
            field(&inode.0.to_le_bytes());
            field(&inode.1.to_le_bytes());
        }
        if checkpoint.is_in_memory() {
            field(&never_again().0.to_le_bytes());
        }
        for tensor in &plan.tensors {
            let stored = plan.column_tensor(tensor, column);
            field(stored.name.as_bytes());
            field(stored.dtype.safetensors_name().as_bytes());
            // The same name can be given to another tensor of the same file.
            let (file, offset) = stored.place.sort_key();
            field(&(file as u64).to_le_bytes());
            field(&offset.to_le_bytes());
            stored.shape.iter().for_each(|n| field(&(*n as u64).to_le_bytes()));
        }
    }
    plan.carried.iter().for_each(|name| field(name.as_bytes()));
    for twin in &plan.fit.twins {
        field(twin.name.as_bytes());
        field(twin.of.as_bytes());
    }
    for skipped in &plan.skipped {
        field(skipped.name.as_bytes());
        field(skipped.reason.as_bytes());
    }
    Digest::of(&key)
}

/// Whether a path is one that [`BookmarkFolder`] writes: `gram-DIGITS.bookmark` and the like, or such a file half written.
fn is_bookmark(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".new").unwrap_or(&name);
    let stem = name.strip_suffix(".bookmark").or_else(|| name.strip_suffix(".safetensors"));
    let digits =
        stem.and_then(|stem| ["gram-", "atoms-", "codes-"].into_iter().find_map(|start| stem.strip_prefix(start)));
    digits.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        && is_plain_file(path)
}

fn is_plain_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

fn remove(path: &Path) -> Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    removed.map_err(|error| Error::io("removing", path, &error))
}

fn to_bytes(bookmark: &Bookmark) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let count = |n: usize, bytes: &mut Vec<u8>| bytes.extend((n as u64).to_le_bytes());
    count(bookmark.n_folded, &mut bytes);
    count(bookmark.sums.len(), &mut bytes);
    count(bookmark.digests.len(), &mut bytes);
    bytes.extend(bookmark.sums.iter().flat_map(|sum| sum.to_le_bytes()));
    let (spans, tensor, tensor_sums) = bookmark.passing.parts();
    let (span, span_sums) = spans.parts();
    // Tensors counted from 1; 0 where there is none.
    let span_tensor = span.map_or(0, |span| span.tensor + 1);
    for n in [span_tensor, span.map_or(0, |span| span.index), tensor.map_or(0, |tensor| tensor + 1), tensor_sums.len()]
    {
        count(n, &mut bytes);
    }
    bytes.extend(span_sums.iter().chain(tensor_sums).flat_map(|sum| sum.to_le_bytes()));
    for digests in &bookmark.digests {
        let (n_columns, closed, open) = digests.parts();
        for n in [n_columns, closed.len(), open.len()] {
            count(n, &mut bytes);
        }
        bytes.extend(closed.iter().chain(&open).flat_map(|digest| digest.0.to_le_bytes()));
    }
    let seal = Digest::of(&bytes);
    bytes.extend(seal.0.to_le_bytes());
    bytes
}

/// `None` for anything that [`to_bytes`] did not write.
fn parse(bytes: &[u8]) -> Option<Bookmark> {
    let (body, seal) = bytes.split_last_chunk::<16>()?;
    if Digest::of(body) != Digest(u128::from_le_bytes(*seal)) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let n_folded = count(&mut rest)?;
    let (n_sums, n_tables) = (count(&mut rest)?, count(&mut rest)?);
    let sums = floats(&mut rest, n_sums)?;
    let (span_tensor, index) = (count(&mut rest)?, count(&mut rest)?);
    let span = span_tensor.checked_sub(1).map(|tensor| Span { tensor, index });
    let (tensor, n_values) = (count(&mut rest)?.checked_sub(1), count(&mut rest)?);
    let spans = SpanSums::from_parts(span, floats(&mut rest, n_values)?);
    let passing = TensorSums::from_parts(spans, tensor, floats(&mut rest, n_values)?)?;
    let mut digests = Vec::new();
    for _ in 0..n_tables {
        let (n_columns, n_closed, n_open) = (count(&mut rest)?, count(&mut rest)?, count(&mut rest)?);
        let mut table = |n: usize| -> Option<Vec<Digest>> {
            let bytes = take(&mut rest, n.checked_mul(16)?)?;
            let digest = |b: &[u8]| Digest(u128::from_le_bytes(b.try_into().unwrap_or_default()));
            Some(bytes.chunks_exact(16).map(digest).collect())
        };
        digests.push(TensorDigests::from_parts(n_columns, table(n_closed)?, &table(n_open)?)?);
    }
    rest.is_empty().then_some(Bookmark { n_folded, sums, passing, digests })
}

fn take<'a>(rest: &mut &'a [u8], n_bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(n_bytes)?;
    *rest = left;
    Some(taken)
}

fn floats(rest: &mut &[u8], n: usize) -> Option<Vec<f64>> {
    let bytes = take(rest, n.checked_mul(8)?)?;
    Some(bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default())).collect())
}

fn count(rest: &mut &[u8]) -> Option<usize> {
    let bytes = take(rest, 8)?;
    usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_come_back_and_damaged_ones_do_not() {
        let mut bookmark = Bookmark::start(3, 2, &[2, 1]);
        let block = crate::pass::Block { tensor: 5, first_row: 1 << 22, n_rows: 7 };
        bookmark.passing.add(&block, &[0.25, -8.0], |_, _| {});
        bookmark.passing.add(&crate::pass::Block { tensor: 6, ..block }, &[0.5, 4.0], |_, _| {});
        bookmark.n_folded = 7;
        bookmark.sums[1] = -0.5;
        bookmark.digests[0].push(0, &[Digest(1), Digest(2)]);
        bookmark.digests[0].push(2, &[Digest(3), Digest(4)]);
        bookmark.digests[1].push(1, &[Digest(5)]);
        let bytes = to_bytes(&bookmark);
        assert_eq!(parse(&bytes), Some(bookmark));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&damaged), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn sealed_bookmarks_with_wild_counts_are_refused() {
        for count in [1, 1 << 40, u64::MAX / 8, u64::MAX] {
            let mut bytes = MAGIC.to_vec();
            for n in [0, count, 0, 0, 0, 0, 0] {
                bytes.extend(n.to_le_bytes());
            }
            let seal = Digest::of(&bytes);
            bytes.extend(seal.0.to_le_bytes());
            assert_eq!(parse(&bytes), None, "{count} sums");
        }
    }
}

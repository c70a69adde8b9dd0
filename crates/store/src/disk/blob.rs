//! One blob on disk: a sparse file with its chunks, and a journal of what is known of them.
//!
//! State: which chunks are verified or suspect, where the journal ends, what the two files take.
//! Invariants: a chunk is in at most one of `verified` and `suspect`; whatever memory says is in the journal already; the data file exists
//! before the first chunk is recorded. `writer` is locked before `state`, and `state` for no longer than it takes to look.
//! Absent on purpose: other blobs, and the decision whether there is room.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustix::fs::FallocateFlags;
use shoal_chain::{ChunkProof, verify_chunk};
use shoal_types::{BlobInfo, BlobKey, ByteRange, ChunkSet};

use super::account::Account;
use super::directory::{Directory, private_file};
use super::files::{Files, Kind};
use super::journal::{BootId, Record, Replayed, records, replay};
use super::lock;
use crate::proofs::{Ends, Proofs};
use crate::store::{check_range, links_limit};
use crate::{Pace, StoreError, StoredBlob};

/// What a file system allocates at least, and by which small files are counted.
const BLOCK_BYTES: u64 = 4096;

/// What all blobs of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: Directory,
    pub(super) files: Files,
    pub(super) account: Account,
    pub(super) boot: BootId,
}

/// A blob's number and key as its files' names have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlobName {
    pub(super) key: BlobKey,
    pub(super) number: u64,
}

impl BlobName {
    pub(super) fn file(&self, dir: &Path, kind: Kind) -> PathBuf {
        let digest = self.key.digest.to_string().replace(':', "-");
        let extension = match kind {
            Kind::Data => "data",
            Kind::Journal => "journal",
        };
        dir.join(format!("{digest}-{}-{}.{extension}", self.key.chunk_size.bytes(), self.number))
    }

    /// What a file's name says; none if it isn't one of ours.
    pub(super) fn parse(name: &str) -> Option<(Self, Kind)> {
        let (stem, extension) = name.split_once('.')?;
        let kind = match extension {
            "data" => Kind::Data,
            "journal" => Kind::Journal,
            _ => return None,
        };
        let mut fields = stem.split('-');
        let digest = format!("{}:{}", fields.next()?, fields.next()?).parse().ok()?;
        let chunk_size = shoal_types::ChunkSize::new(fields.next()?.parse().ok()?).ok()?;
        let parsed = Self { key: BlobKey { digest, chunk_size }, number: fields.next()?.parse().ok()? };
        // Numbers have several spellings; only the one that we write leads back to the file.
        (parsed.file(Path::new(""), kind).to_str() == Some(name)).then_some((parsed, kind))
    }
}

#[derive(Debug)]
pub(super) struct Blob {
    info: BlobInfo,
    number: u64,
    data_path: PathBuf,
    journal_path: PathBuf,
    writer: Mutex<Writer>,
    state: Mutex<State>,
}

/// Whoever has it may write to the blob's files.
#[derive(Debug)]
struct Writer {
    /// Where the journal ends.
    len: u64,
    /// Whether the journal's last boot record is of this boot.
    same_boot: bool,
    /// A record was torn and couldn't be cut off: nothing behind it would be read again.
    broken: bool,
}

#[derive(Debug)]
struct State {
    verified: ChunkSet,
    suspect: ChunkSet,
    sealed: bool,
    links_bytes: u64,
    data_bytes: u64,
    journal_bytes: u64,
    changed: SystemTime,
    removed: bool,
}

impl State {
    fn present(&self) -> Result<&Self, StoreError> {
        if self.removed { Err(StoreError::Absent) } else { Ok(self) }
    }
}

impl Blob {
    /// Begins a blob: its journal says so before anything else is done with it.
    pub(super) fn create(shared: &Shared, info: BlobInfo, number: u64) -> Result<Self, StoreError> {
        let name = BlobName { key: info.key(), number };
        let size_bytes = info.geometry.size_bytes();
        let replayed = Replayed {
            blob: info,
            verified: ChunkSet::empty_of(info.geometry),
            suspect: ChunkSet::empty_of(info.geometry),
            sealed: false,
            links_bytes: 0,
            len: 0,
            same_boot: true,
        };
        let blob = Self::new(shared, name, replayed, SystemTime::now());
        let mut first = Record::Blob { size_bytes }.encode(&name.key, 0);
        let boot = Record::Boot(shared.boot).encode(&name.key, first.len() as u64);
        first.extend_from_slice(&boot);
        let doing = "begin a blob";
        private_file().create_new(true).open(&blob.journal_path).map_err(StoreError::io(doing))?;
        let _room = shared.account.reserve(BLOCK_BYTES, || shared.directory.space()).inspect_err(|_| blob.unlink())?;
        blob.append_bytes(shared, &mut lock(&blob.writer), &first).inspect_err(|_| {
            shared.files.forget(number);
            blob.unlink();
        })?;
        blob.count(shared, &lock(&blob.writer), None);
        Ok(blob)
    }

    /// A blob as an earlier process left it; none if its journal or its data are not to be used.
    pub(super) fn load(shared: &Shared, name: BlobName) -> io::Result<Option<Self>> {
        let journal_path = name.file(shared.directory.blobs(), Kind::Journal);
        let journal = fs::read(&journal_path)?;
        let Some(replayed) = replay(&name.key, &journal, shared.boot) else { return Ok(None) };
        if replayed.len < journal.len() as u64 {
            tracing::debug!(digest = %name.key.digest, bytes = journal.len() as u64 - replayed.len, "cut off a torn record");
            private_file().open(&journal_path)?.set_len(replayed.len)?;
        }
        let has_chunks = !replayed.verified.is_empty() || !replayed.suspect.is_empty();
        let data_bytes = match fs::symlink_metadata(name.file(shared.directory.blobs(), Kind::Data)) {
            Ok(data) if data.is_file() && data.len() == replayed.blob.geometry.size_bytes() => allocated(&data),
            // The file is as long as the blob before its first chunk is recorded: somebody else was here.
            _ if has_chunks => return Ok(None),
            // Killed between the file's creation and its first chunk.
            Ok(data) => allocated(&data),
            Err(_) => 0,
        };
        let changed = fs::metadata(&journal_path)?.modified()?;
        let blob = Self::new(shared, name, replayed, changed);
        blob.count(shared, &lock(&blob.writer), Some(data_bytes));
        Ok(Some(blob))
    }

    fn new(shared: &Shared, name: BlobName, replayed: Replayed, changed: SystemTime) -> Self {
        let Replayed { blob, verified, suspect, sealed, links_bytes, len, same_boot } = replayed;
        Self {
            info: blob,
            number: name.number,
            data_path: name.file(shared.directory.blobs(), Kind::Data),
            journal_path: name.file(shared.directory.blobs(), Kind::Journal),
            writer: Mutex::new(Writer { len, same_boot, broken: false }),
            state: Mutex::new(State {
                verified,
                suspect,
                sealed,
                links_bytes,
                data_bytes: 0,
                journal_bytes: 0,
                changed,
                removed: false,
            }),
        }
    }

    pub(super) const fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// None once it is removed.
    pub(super) fn stored(&self) -> Option<StoredBlob> {
        let state = lock(&self.state);
        state.present().ok().map(|state| StoredBlob {
            blob: self.info,
            verified: state.verified.clone(),
            suspect: state.suspect.clone(),
            sealed: state.sealed,
            links_bytes: state.links_bytes,
            own_bytes: state.data_bytes + state.journal_bytes,
            changed: state.changed,
        })
    }

    pub(super) fn keep(&self, shared: &Shared, proof: &ChunkProof, bytes: &[u8]) -> Result<(), StoreError> {
        let chunk = proof.chunk();
        let range = self.info.geometry.byte_range(chunk).expect("the proof is of this blob, and so is its chunk");
        let mut writer = lock(&self.writer);
        if lock(&self.state).present()?.verified.contains(chunk) {
            return Ok(());
        }
        // The record and the block in which it begins may be new ones.
        let _room = shared.account.reserve(u64::from(range.len) + BLOCK_BYTES, || shared.directory.space())?;
        let data = self.create_data(shared).map_err(StoreError::io("create a blob's file"))?;
        let ends = Ends { before: proof.link_before(), after: proof.link_after() };
        let kept = data
            .write_all_at(bytes, range.start)
            .map_err(StoreError::io("write a chunk"))
            .and_then(|()| self.append(shared, &mut writer, &Record::Proven { chunk, ends }));
        if kept.is_err() {
            // Whatever was there has been overwritten, at least in part.
            lock(&self.state).suspect.remove(chunk);
            punch(&data, range);
        } else {
            let mut state = lock(&self.state);
            state.suspect.remove(chunk);
            state.verified.insert(chunk);
            state.changed = SystemTime::now();
        }
        self.count(shared, &writer, data.metadata().ok().as_ref().map(allocated));
        kept
    }

    pub(super) fn keep_links(&self, shared: &Shared, links: &[u8]) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        let kept = lock(&self.state).present()?.links_bytes;
        let bytes = links.len() as u64;
        let limit_bytes = links_limit(&self.info);
        if kept.saturating_add(bytes) > limit_bytes {
            return Err(StoreError::TooManyLinks { limit_bytes });
        }
        let _room = shared.account.reserve(bytes + BLOCK_BYTES, || shared.directory.space())?;
        self.append(shared, &mut writer, &Record::Links(links))?;
        lock(&self.state).links_bytes += bytes;
        self.count(shared, &writer, None);
        Ok(())
    }

    pub(super) fn links(&self, shared: &Shared) -> Result<Vec<Vec<u8>>, StoreError> {
        let journal = self.read_journal(shared, &lock(&self.writer))?;
        let mut links = Vec::new();
        for (record, _) in records(&self.info.key(), &journal) {
            if let Record::Links(bytes) = record {
                links.push(bytes.to_vec());
            }
        }
        Ok(links)
    }

    pub(super) fn read_at(&self, shared: &Shared, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        // Chunks once verified are never written again, so the file may be read without a lock.
        check_range(&self.info, &lock(&self.state).present()?.verified, offset, buf.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        let doing = "read a chunk";
        let data = self.open_data(shared).map_err(|error| self.gone_or(error, doing))?;
        data.read_exact_at(buf, offset).map_err(StoreError::io(doing))
    }

    pub(super) fn recheck(&self, shared: &Shared, pace: &mut Pace<'_>) -> Result<(), StoreError> {
        let suspect = lock(&self.state).present()?.suspect.clone();
        if suspect.is_empty() {
            return Ok(());
        }
        let proofs = self.proofs(shared, &lock(&self.writer))?;
        let data = self.open_data(shared).map_err(|error| self.gone_or(error, "read a chunk"))?;
        let mut bytes = Vec::new();
        for chunk in suspect.iter() {
            let range = self.info.geometry.byte_range(chunk).expect("a set of this blob's chunks");
            bytes.resize(range.len as usize, 0);
            // A sector that can't be read is a chunk that isn't here.
            let read = data.read_exact_at(&mut bytes, range.start).is_ok();
            let good = proofs
                .get(chunk)
                .filter(|ends| read && verify_chunk(&self.info, chunk, &bytes, ends.before, ends.after).is_ok());
            let mut writer = lock(&self.writer);
            // Another thread may have got it anew, or removed the blob.
            if lock(&self.state).present()?.suspect.contains(chunk) {
                if let Some(ends) = good {
                    self.append(shared, &mut writer, &Record::Proven { chunk, ends })?;
                    lock(&self.state).verified.insert(chunk);
                } else {
                    punch(&data, range);
                }
                lock(&self.state).suspect.remove(chunk);
                self.count(shared, &writer, data.metadata().ok().as_ref().map(allocated));
            }
            drop(writer);
            if pace(u64::from(range.len)).is_break() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn seal(&self, shared: &Shared) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        {
            let state = lock(&self.state);
            let verified = &state.present()?.verified;
            if state.sealed {
                return Ok(());
            }
            if !verified.is_full() {
                return Err(StoreError::Incomplete { missing: verified.capacity() - verified.len() });
            }
        }
        self.proofs(shared, &writer)?.check_joined()?;
        self.append(shared, &mut writer, &Record::Sealed)?;
        lock(&self.state).sealed = true;
        self.count(shared, &writer, None);
        Ok(())
    }

    /// Whether it was this call that removed it.
    pub(super) fn remove(&self, shared: &Shared) -> Result<bool, StoreError> {
        // Whoever is writing finishes first; readers go on with the file that they have open.
        let _writer = lock(&self.writer);
        if lock(&self.state).removed {
            return Ok(false);
        }
        // The journal first: without it the data file is nothing, even if this process ends right here.
        let doing = "remove a blob";
        fs::remove_file(&self.journal_path).or_else(absent_is_fine).map_err(StoreError::io(doing))?;
        {
            let mut state = lock(&self.state);
            state.removed = true;
            shared.account.change(state.data_bytes + state.journal_bytes, 0);
        }
        shared.files.forget(self.number);
        fs::remove_file(&self.data_path).or_else(absent_is_fine).map_err(StoreError::io(doing))?;
        Ok(true)
    }

    fn append(&self, shared: &Shared, writer: &mut Writer, record: &Record<'_>) -> Result<(), StoreError> {
        let key = self.info.key();
        let mut bytes = Vec::new();
        if !writer.same_boot {
            bytes = Record::Boot(shared.boot).encode(&key, writer.len);
        }
        let record = record.encode(&key, writer.len + bytes.len() as u64);
        bytes.extend_from_slice(&record);
        self.append_bytes(shared, writer, &bytes)
    }

    fn append_bytes(&self, shared: &Shared, writer: &mut Writer, bytes: &[u8]) -> Result<(), StoreError> {
        let doing = "write a blob's journal";
        if writer.broken {
            return Err(StoreError::io(doing)(io::Error::other("an earlier record is torn")));
        }
        let journal = self.open_journal(shared).map_err(StoreError::io(doing))?;
        journal.write_all_at(bytes, writer.len).map_err(|error| {
            writer.broken = journal.set_len(writer.len).is_err();
            StoreError::io(doing)(error)
        })?;
        writer.len += bytes.len() as u64;
        writer.same_boot = true;
        Ok(())
    }

    fn read_journal(&self, shared: &Shared, writer: &Writer) -> Result<Vec<u8>, StoreError> {
        lock(&self.state).present()?;
        let doing = "read a blob's journal";
        let mut bytes = vec![0; usize::try_from(writer.len).unwrap_or(usize::MAX)];
        self.open_journal(shared).and_then(|file| file.read_exact_at(&mut bytes, 0)).map_err(StoreError::io(doing))?;
        Ok(bytes)
    }

    fn proofs(&self, shared: &Shared, writer: &Writer) -> Result<Proofs, StoreError> {
        let journal = self.read_journal(shared, writer)?;
        let mut proofs = Proofs::none(self.info);
        for (record, _) in records(&self.info.key(), &journal) {
            if let Record::Proven { chunk, ends } = record {
                proofs.set(chunk, ends);
            }
        }
        Ok(proofs)
    }

    /// Brings the account up to date with the two files. `data_bytes` is none where the data file wasn't touched.
    fn count(&self, shared: &Shared, writer: &Writer, data_bytes: Option<u64>) {
        let mut state = lock(&self.state);
        let before = state.data_bytes + state.journal_bytes;
        state.data_bytes = data_bytes.unwrap_or(state.data_bytes);
        state.journal_bytes = writer.len.next_multiple_of(BLOCK_BYTES);
        shared.account.change(before, state.data_bytes + state.journal_bytes);
    }

    fn open_journal(&self, shared: &Shared) -> io::Result<Arc<File>> {
        shared.files.get(self.number, Kind::Journal, || private_file().open(&self.journal_path))
    }

    fn open_data(&self, shared: &Shared) -> io::Result<Arc<File>> {
        shared.files.get(self.number, Kind::Data, || private_file().open(&self.data_path))
    }

    /// The data file, as long as the blob: where it is shorter, nothing is recorded of it yet.
    fn create_data(&self, shared: &Shared) -> io::Result<Arc<File>> {
        let size_bytes = self.info.geometry.size_bytes();
        let file = shared
            .files
            .get(self.number, Kind::Data, || private_file().create(true).truncate(false).open(&self.data_path))?;
        if file.metadata()?.len() != size_bytes {
            file.set_len(size_bytes)?;
        }
        Ok(file)
    }

    /// A file that a removal has taken away meanwhile is no error of the system.
    fn gone_or(&self, error: io::Error, doing: &'static str) -> StoreError {
        if lock(&self.state).removed { StoreError::Absent } else { StoreError::io(doing)(error) }
    }

    /// Takes back a beginning that failed.
    fn unlink(&self) {
        if let Err(error) = fs::remove_file(&self.journal_path) {
            tracing::warn!(path = %self.journal_path.display(), %error, "an empty journal stays until the next start");
        }
    }
}

pub(super) fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn allocated(file: &fs::Metadata) -> u64 {
    // st_blocks counts 512 bytes, whatever the file system's blocks are.
    file.blocks() * 512
}

/// Gives back what a range has allocated. Where the file system can't, the bytes stay allocated, and counted.
fn punch(file: &File, range: ByteRange) {
    if range.len > 0 {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = rustix::fs::fallocate(file, flags, range.start, u64::from(range.len)) {
            tracing::debug!(%error, "a chunk's bytes can't be given back before its blob is removed");
        }
    }
}

//! A dump: a folder with all that was kept, in files of records, one a line of JSON, and a list of these files. A file is in the list
//! as soon as it is whole on the disk, and the list is replaced in one step: so whoever is killed while writing a dump goes on
//! behind the last file of the list. `docs/moving-state.md` describes the format.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use lethe_state::portable::{Part, Record};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The format that is written, and the only one that is read.
pub(super) const FORMAT: u32 = 1;
/// The list of files.
const MANIFEST: &str = "manifest.json";
/// What has been imported from the dump, and where to.
const IMPORTED: &str = "imported.json";
/// The folder of blobs' bytes.
const BLOBS: &str = "blobs";
/// What others than its owner may do with a folder.
const OTHERS: u32 = 0o077;
/// How much of a file is read at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Longest line, in bytes: the largest session or answer, of which JSON may write each byte as six.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// The list of files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// Where it comes from, without what is secret.
    pub(super) source: String,
    /// What tells the source from others.
    pub(super) source_identity: String,
    /// Whether all of it is there.
    pub(super) is_complete: bool,
    /// How far each part is.
    pub(super) parts: BTreeMap<Part, Progress>,
}

/// How far a part is.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Its files, in their order.
    pub(super) segments: Vec<Segment>,
    /// Where it goes on; `None` at the beginning and at the end.
    pub(super) next: Option<String>,
    /// Whether all of it is there.
    pub(super) is_complete: bool,
}

/// A file of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Segment {
    /// Its name.
    pub(super) file: String,
    /// How many records it has.
    pub(super) records: u64,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub(super) sha256: String,
}

/// What has been imported.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Imported {
    /// Where to, without what is secret.
    pub(super) target: String,
    /// What tells the target from others.
    pub(super) target_identity: String,
    /// The files that are there.
    pub(super) files: Vec<String>,
    /// How many fences of blobs the target could not take.
    pub(super) fences_left: u64,
}

/// The folder of a dump.
pub(super) struct Folder {
    path: PathBuf,
}

impl Progress {
    /// How many records there are by now.
    pub(super) fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum()
    }
}

impl Folder {
    /// A new folder, or one that an export has begun to fill. One that others can enter is refused.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("cannot write {}", path.display());
        let folder = Self { path: path.to_owned() };
        if !path.join(MANIFEST).exists() {
            let is_empty = match fs::read_dir(path) {
                Ok(mut entries) => entries.next().is_none(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) => return Err(error).with_context(failed),
            };
            ensure!(is_empty, "{} is not empty, and is no dump: name another folder", path.display());
        }
        let is_open = path.exists() && fs::metadata(path).with_context(failed)?.mode() & OTHERS != 0;
        ensure!(
            !is_open,
            "{0} can be entered or read by others, and a dump has sessions, answers and private keys: `chmod 700 {0}`, or name a \
             folder that is not there yet",
            path.display()
        );
        let blobs = path.join(BLOBS);
        private(&blobs).with_context(failed)?;
        Ok(folder)
    }

    /// The folder of a dump that is there.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let is_dump = path.join(MANIFEST).exists();
        ensure!(
            is_dump,
            "{} is no dump: it has no {MANIFEST}, as `lethe state export` writes it",
            path.display()
        );
        Ok(Self { path: path.to_owned() })
    }

    /// The list of files, if there is one.
    pub(super) fn manifest(&self) -> anyhow::Result<Option<Manifest>> {
        let Some(manifest) = self.read::<serde_json::Value>(MANIFEST)? else { return Ok(None) };
        let format = manifest.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            bail!(
                "{} is of another version of lethe: its format is {}, and this one knows {FORMAT}",
                self.path.display(),
                format.map_or("not named".into(), |format| format.to_string())
            );
        }
        let read = serde_json::from_value(manifest);
        read.map(Some)
            .with_context(|| format!("{} is not as lethe writes it", self.path.join(MANIFEST).display()))
    }

    /// Replaces the list of files. The blobs that were copied before survive a power cut with it.
    pub(super) fn keep_manifest(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let blobs = self.path.join(BLOBS);
        let synced = File::open(&blobs).and_then(|folder| folder.sync_all());
        synced.with_context(|| format!("cannot write {}", blobs.display()))?;
        self.replace(MANIFEST, manifest)
    }

    pub(super) fn imported(&self) -> anyhow::Result<Option<Imported>> {
        self.read(IMPORTED)
    }

    pub(super) fn keep_imported(&self, imported: &Imported) -> anyhow::Result<()> {
        self.replace(IMPORTED, imported)
    }

    /// Where the bytes of a blob are.
    pub(super) fn blob(&self, bucket: &str, key: &str) -> PathBuf {
        let name = hex(&Sha256::digest(format!("{bucket}/{key}")));
        self.path.join(BLOBS).join(name)
    }

    /// Begins a file of records, which is there once it is [ended](Writing::end).
    pub(super) fn begin(&self, part: Part, number: usize) -> anyhow::Result<Writing> {
        let name = format!("{}-{number:06}.ndjson", part.name());
        let beside = self.path.join(format!("{name}.part"));
        let file = create(&beside).with_context(|| format!("cannot write {}", beside.display()))?;
        let writer = BufWriter::new(file);
        Ok(Writing { name, beside, writer, hash: Sha256::new(), records: 0, bytes: 0 })
    }

    /// Reads a file of records line by line. It was [checked](Self::check) before.
    pub(super) fn records(
        &self,
        segment: &Segment,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Record>> + use<>> {
        let path = self.path.join(&segment.file);
        let mut reader = BufReader::new(File::open(&path).with_context(|| path.display().to_string())?);
        let mut number = 0;
        Ok(std::iter::from_fn(move || {
            let mut line = Vec::new();
            number += 1;
            let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let at = || format!("{}, line {number}", path.display());
            match read.with_context(at) {
                Ok(0) => None,
                Ok(_) => Some(serde_json::from_slice(&line).with_context(at)),
                Err(error) => Some(Err(error)),
            }
        }))
    }

    /// Whether a file is as it was written, without holding it in memory.
    pub(super) fn check(&self, segment: &Segment) -> anyhow::Result<()> {
        let path = self.path.join(&segment.file);
        let mut hash = Sha256::new();
        let mut read = || {
            let mut file = File::open(&path)?;
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                match file.read(&mut piece)? {
                    0 => return Ok::<(), io::Error>(()),
                    length => hash.update(&piece[..length]),
                }
            }
        };
        read().with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            hex(&hash.finalize()) == segment.sha256,
            "{} is damaged: its SHA-256 is not that of {MANIFEST}; nothing of it was imported. Copy the dump anew",
            path.display()
        );
        Ok(())
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is not as lethe writes it", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Replaces a small file in one step, which survives a power cut.
    fn replace(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let (beside, path) = (self.path.join(format!("{name}.part")), self.path.join(name));
        let write = || {
            let mut file = create(&beside)?;
            file.write_all(&serde_json::to_vec_pretty(value)?)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A file of records that is being written.
pub(super) struct Writing {
    name: String,
    beside: PathBuf,
    writer: BufWriter<File>,
    hash: Sha256,
    records: u64,
    /// How much it is by now.
    pub(super) bytes: u64,
}

impl Writing {
    /// Adds a record.
    pub(super) fn add(&mut self, record: &Record) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.hash.update(&line);
        (self.records, self.bytes) = (self.records + 1, self.bytes + line.len() as u64);
        self.writer.write_all(&line).with_context(|| format!("cannot write {}", self.beside.display()))
    }

    /// All of it is there, and survives a power cut.
    pub(super) fn end(self) -> anyhow::Result<Segment> {
        let Self { name, beside, writer, hash, records, .. } = self;
        let end = || {
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs::rename(&beside, beside.with_file_name(&name))
        };
        end().with_context(|| format!("cannot write {}", beside.display()))?;
        Ok(Segment { file: name, records, sha256: hex(&hash.finalize()) })
    }
}

/// Hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a record is of, as a number that no other one of its part has.
pub(super) fn name(record: &Record) -> u128 {
    let text = match record {
        Record::Counter(_) => String::new(),
        Record::Row(row) => format!("{}/{}", row.table, row.key),
        Record::Ended(ended) => ended.hash.to_text(),
        Record::Session(session) => session.hash.to_text(),
        Record::Answer(answer) => format!("{}/{}", answer.scope, answer.key),
        Record::Blob(blob) => format!("{}/{}", blob.bucket, blob.key),
    };
    let hash: [u8; 32] = Sha256::digest(text).into();
    u128::from_le_bytes(*hash.first_chunk().unwrap_or(&[0; 16]))
}

/// Makes a folder, and those above it, that only its owner can enter: there are sessions in it.
fn private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a file that only its owner can read, or empties it.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

//! The last decisions of each service, with all that they were taken from: in memory, and in a file of the state folder,
//! so that they can be asked for after whatever has happened to `lethe`. In a file and not in the state tier, since
//! that may be on a server that is away just when somebody wants to know, and nobody else has use for them. It is
//! not waited for: what the disk cannot take is not kept.

use std::{
    collections::VecDeque,
    fs,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, SyncSender, TrySendError},
    },
    thread,
};

use lethe_admin::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// Decisions of a service that are kept.
pub const KEPT_MAX: usize = 32;
/// What the cases of a service may come to; those of many workers are long. The last one is always kept.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// How large the file of a service becomes before it is written anew with what is kept.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Decisions that wait for the disk.
const WRITES_MAX: usize = 64;

/// One decision, as a line of the file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, for as long as the state folder is there.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// How many workers there should have been.
    pub from: u32,
    /// How many there should be; as before, if it could not be decided.
    pub to: u32,
    /// Why.
    pub reasons: Vec<String>,
    /// Why it could not be decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Metrics that say nothing, with what is wrong with their source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What `lethe simulate` decides it again from, as JSON. In the file it is no text but stands there itself.
    #[serde(with = "nested")]
    pub case: String,
}

/// JSON in JSON.
mod nested {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};
    use serde_json::Value;

    pub fn serialize<S: Serializer>(json: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<Value>(json).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Value::deserialize(deserializer).map(|json| json.to_string())
    }
}

/// The decisions of one service.
#[derive(Debug)]
pub struct DecisionLog {
    entries: VecDeque<Arc<Entry>>,
    path: PathBuf,
    writer: Option<Writer>,
}

impl DecisionLog {
    /// That of the service `name`, with what is in its file in `folder`. Without a writer nothing is written.
    pub fn open(folder: &Path, name: &str, writer: Option<Writer>) -> Self {
        let path = folder.join(format!("{name}.jsonl"));
        let mut log = Self { entries: VecDeque::new(), path, writer };
        // A file that is gone or broken is one that says nothing.
        if log.path.metadata().is_ok_and(|meta| meta.len() <= 2 * FILE_BYTES_MAX) {
            let text = fs::read_to_string(&log.path).unwrap_or_default();
            for entry in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
                log.keep(Arc::new(entry));
            }
        }
        log
    }

    /// Those that are kept, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().map(|entry| &**entry)
    }

    /// The one of this number.
    pub fn get(&self, number: u64) -> Option<&Entry> {
        self.entries().find(|entry| entry.number == number)
    }

    /// The number of the next one.
    pub fn next(&self) -> u64 {
        self.entries.back().map_or(1, |last| last.number + 1)
    }

    /// Keeps another one. Cheap: what takes long is done where it is written.
    pub fn add(&mut self, entry: Entry) {
        self.keep(Arc::new(entry));
        if let Some(writer) = &self.writer {
            writer.send(Order { path: self.path.clone(), entries: self.entries.iter().cloned().collect() });
        }
    }

    fn keep(&mut self, entry: Arc<Entry>) {
        self.entries.push_back(entry);
        let bytes =
            |entries: &VecDeque<Arc<Entry>>| entries.iter().map(|entry| entry.case.len()).sum::<usize>();
        while self.entries.len() > KEPT_MAX
            || (self.entries.len() > 1 && bytes(&self.entries) > KEPT_BYTES_MAX)
        {
            self.entries.pop_front();
        }
    }
}

/// Writes for all services, on a thread of its own.
#[derive(Clone, Debug)]
pub struct Writer(SyncSender<Order>);

/// The last of these is to be written; all of them, where the file has become too large.
#[derive(Debug)]
struct Order {
    path: PathBuf,
    entries: Vec<Arc<Entry>>,
}

impl Writer {
    /// Begins; it ends when the last copy is dropped.
    ///
    /// # Errors
    /// If the folder cannot be made, or the system has no thread left.
    pub fn start(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let (orders, taken) = mpsc::sync_channel::<Order>(WRITES_MAX);
        thread::Builder::new().name("scaling".into()).spawn(move || {
            let mut is_well = true;
            for order in taken {
                let done = order.run();
                if let (Err(error), true) = (&done, is_well) {
                    tracing::warn!(%error, "decisions of scaling cannot be written to the state folder");
                }
                is_well = done.is_ok();
            }
        })?;
        Ok(Self(orders))
    }

    fn send(&self, order: Order) {
        if let Err(TrySendError::Full(_)) = self.0.try_send(order) {
            tracing::warn!("a decision of scaling is not kept in the state folder: the disk is too slow");
        }
    }
}

impl Order {
    fn run(self) -> io::Result<()> {
        let line = |entry: &Arc<Entry>| -> io::Result<String> { Ok(serde_json::to_string(&**entry)? + "\n") };
        let Some(last) = self.entries.last() else { return Ok(()) };
        let mut lines = line(last)?;
        let mut file = fs::OpenOptions::new().create(true).read(true).append(true).open(&self.path)?;
        let size = file.metadata()?.len();
        if size + lines.len() as u64 > FILE_BYTES_MAX {
            let new = self.path.with_extension("new");
            fs::write(&new, self.entries.iter().map(line).collect::<io::Result<String>>()?)?;
            return fs::rename(new, self.path);
        }
        let mut end = [b'\n'];
        if size > 0 {
            file.read_exact_at(&mut end, size - 1)?;
        }
        if end != *b"\n" {
            // What was written by half when power went must not take this one with it.
            lines.insert(0, '\n');
        }
        file.write_all(lines.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn entry(number: u64, case: &str) -> Entry {
        let case = case.to_owned();
        let (at, reasons) = (SystemTime::now().into(), vec!["so".into()]);
        Entry { number, at, from: 1, to: 2, reasons, error: None, notes: Vec::new(), case }
    }

    #[test]
    fn the_last_ones_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scaling");
        let writer = Writer::start(&path).unwrap();
        let mut log = DecisionLog::open(&path, "web", Some(writer.clone()));
        for number in 1..=40 {
            assert_eq!(log.next(), number);
            log.add(entry(number, "{\"replicas\": 1}"));
        }
        drop(writer);
        ended(log);
        let whole = fs::read_to_string(path.join("web.jsonl")).unwrap();
        assert!(whole.lines().all(|line| line.starts_with('{')) && whole.ends_with("}\n"), "{whole}");
        fs::OpenOptions::new()
            .append(true)
            .open(path.join("web.jsonl"))
            .unwrap()
            .write_all(b"{half")
            .unwrap();
        let log = DecisionLog::open(&path, "web", None);
        let numbers: Vec<u64> = log.entries().map(|entry| entry.number).collect();
        assert_eq!(numbers, (9..=40).collect::<Vec<_>>());
        assert_eq!(log.get(40).unwrap().case, "{\"replicas\":1}");
        assert!(log.get(8).is_none());
        assert_eq!(DecisionLog::open(&path, "other", None).next(), 1);
        // What follows half a line is a line of its own.
        let writer = Writer::start(&path).unwrap();
        let mut log = DecisionLog::open(&path, "web", Some(writer));
        log.add(entry(41, "1"));
        ended(log);
        assert_eq!(DecisionLog::open(&path, "web", None).next(), 42);
    }

    #[test]
    fn what_is_kept_is_bounded_on_disk_and_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(folder.path()).unwrap();
        let mut log = DecisionLog::open(folder.path(), "web", Some(writer.clone()));
        let case = format!("\"{}\"", "x".repeat(1 << 20));
        for number in 1..=20 {
            log.add(entry(number, &case));
            assert!(log.entries.len() <= 4);
            // One after the other, as decisions are: the size of the file is known by the next one.
            while !fs::read_to_string(folder.path().join("web.jsonl"))
                .is_ok_and(|text| text.contains(&format!("{{\"number\":{number},")) && text.ends_with('\n'))
            {
                thread::yield_now();
            }
            assert!(fs::metadata(folder.path().join("web.jsonl")).unwrap().len() <= FILE_BYTES_MAX);
        }
        log.add(entry(21, &format!("\"{}\"", "x".repeat(KEPT_BYTES_MAX + 1))));
        assert_eq!(log.entries.len(), 1, "the last one is always kept");
    }

    /// Waits until all was written: the thread ends with the last writer.
    fn ended(log: DecisionLog) {
        let path = log.path.clone();
        let last = format!("{{\"number\":{},", log.next() - 1);
        drop(log);
        while !fs::read_to_string(&path).is_ok_and(|text| text.contains(&last) && text.ends_with('\n')) {
            thread::yield_now();
        }
    }
}

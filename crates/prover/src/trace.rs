//! What a worker did with files in the course of a journey: which step wrote each, and which later ones read it again. That a file
//! is written says little: logs, files of process numbers and temporary ones are. That a later step reads what an earlier one has
//! written says that something is kept in it, if only a cache; it is no finding, since nobody need miss it elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;

use crate::{
    disk::{Kind, Written},
    finding::{self, Finding},
    world::watch::Seen,
};

/// Most files that are told of in a report.
const FILES_MAX: usize = 200;

/// Files that are named in one sentence.
const NAMED_MAX: usize = 4;

/// A file that a worker wrote, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// The journey's name.
    pub journey: String,
    /// Where workers see it, or saw it last.
    pub path: String,
    /// The steps in which it was written, from 1; 0 is the start of the worker.
    pub written_in: BTreeSet<usize>,
    /// The steps in which it was read after it had been written.
    pub read_in: BTreeSet<usize>,
    /// A step that wrote it, and a later one that read it and did not write it first.
    pub read_back: Option<(usize, usize)>,
    /// Whether it is still there after the last step.
    pub is_left: bool,
    /// Whether it was there before the proof already, with the same in it as when `read_back` read it: then all workers have it, and it
    /// cannot be seen whether one needs it that another one has written.
    pub was_there: bool,
    /// A text of the journey's own that is in it.
    pub canary: Option<String>,
    /// As [`crate::disk::Entry::inode`].
    #[serde(skip)]
    inode: (u64, i64, u32),
}

/// What is seen of a run's worker, by the numbers of its files.
#[derive(Debug, Default)]
pub struct Traces {
    files: BTreeMap<u32, Trace>,
    /// Whether something was missed.
    pub is_cut: bool,
}

impl Traces {
    /// Adds what was seen in a step, which has just been played; 0 is what came before the first one. `is_as_before` says of a file
    /// whether it was there before the proof with the same in it: a later step may write another text, or remove it.
    pub(crate) fn add(&mut self, step: usize, seen: Seen, is_as_before: impl Fn(&Path) -> bool) {
        self.is_cut |= seen.is_cut;
        for touched in seen.files {
            let trace = self.files.entry(touched.number).or_default();
            (trace.path, trace.inode) = (touched.path, touched.inode);
            // In which order a step wrote and read is not known.
            let writer = trace.written_in.last().filter(|writer| **writer > 0 && **writer < step);
            if let Some(writer) = writer.filter(|_| touched.read && !touched.wrote && !trace.was_there) {
                trace.was_there = is_as_before(Path::new(&trace.path));
                if trace.was_there || trace.read_back.is_none() {
                    trace.read_back = Some((*writer, step));
                }
            }
            if touched.wrote {
                trace.written_in.insert(step);
            }
            if touched.read {
                trace.read_in.insert(step);
            }
        }
    }

    /// The files that were written during the journey, by their names; `left` is what the worker's disk has that was.
    pub(crate) fn by_name(&self, journey: &str, left: &Written, canaries: &[String]) -> Vec<Trace> {
        let mut named: BTreeMap<&str, Trace> = BTreeMap::new();
        let later: BTreeMap<_, _> = left.iter().map(|(path, entry)| (entry.inode, path)).collect();
        for file in self.files.values().filter(|file| file.written_in.iter().any(|step| *step > 0)) {
            // Nobody is told when something gets another name.
            let later = later.get(&file.inode).filter(|_| !left.contains_key(Path::new(&file.path)));
            let path = later.and_then(|path| path.to_str()).unwrap_or(&file.path);
            let trace = named.entry(path).or_insert_with(|| Trace {
                journey: journey.to_owned(),
                path: path.to_owned(),
                ..Trace::default()
            });
            trace.written_in.extend(&file.written_in);
            trace.read_in.extend(&file.read_in);
            if trace.read_back.is_none() || (file.was_there && !trace.was_there) {
                (trace.read_back, trace.was_there) = (file.read_back, file.was_there);
            }
        }
        let mut traces: Vec<Trace> = named.into_values().collect();
        for trace in &mut traces {
            let entry = left.get(Path::new(&trace.path)).filter(|entry| entry.kind == Kind::File);
            trace.is_left = entry.is_some();
            trace.canary = entry.and_then(|entry| entry.find(canaries)).map(str::to_owned);
        }
        traces
    }

    /// Whether a step read the file of this name after it had been written.
    pub(crate) fn is_read(&self, path: &str, step: usize) -> bool {
        self.files.values().any(|file| file.path == path && file.read_in.contains(&step))
    }
}

impl Trace {
    /// What is to be said of a file that a later step reads again, in a sentence without its end.
    pub fn warning(&self) -> Option<String> {
        let (writer, reader) = self.read_back.filter(|_| !self.was_there)?;
        let Self { journey, path, .. } = self;
        let canary = self.canary.as_ref().map(|canary| format!(" and has {canary:?} of the journey in it"));
        let canary = canary.unwrap_or_default();
        Some(format!(
            "{journey}: {path}, which step {writer} writes, is read again by step {reader}{canary}: no other worker has it, and nothing \
             that was played shows whether one needs it"
        ))
    }

    /// What was not seen since all workers have the file: the step that reads it, and why.
    pub(crate) fn doubt(&self) -> Option<(usize, String)> {
        let (writer, reader) = self.read_back.filter(|_| self.was_there)?;
        let why = format!(
            "it reads {}, which step {writer} writes, and which was there before the proof with the same in it, so that all workers have it: \
             remove it, and prove again",
            self.path
        );
        Some((reader, why))
    }

    /// Whether a finding says all of it already. Names that have texts of the run in them differ from run to run.
    fn is_explained(&self, findings: &[Finding]) -> bool {
        let of_it = findings.iter().filter(|finding| finding.kind == finding::Kind::File);
        let mut of_it = of_it.filter(|finding| finding.producer.journey == self.journey);
        of_it.any(|finding| {
            let consumers = std::iter::once(&finding.consumer).chain(&finding.also);
            let is_read = consumers.map(|place| place.step).any(|step| self.read_in.contains(&step));
            let is_named = finding.file.as_ref().is_some_and(|file| file.path == self.path);
            is_named || (is_read && self.written_in.contains(&finding.producer.step))
        })
    }
}

/// Puts first what is read again and no finding explains, and cuts the rest to a bound; `None` in `read_back` stays for what is explained.
pub(crate) fn settle(traces: &mut Vec<Trace>, findings: &[Finding]) {
    for trace in traces.iter_mut() {
        if trace.is_explained(findings) {
            trace.read_back = None;
        }
    }
    traces.sort_by(|a, b| {
        (a.read_back.is_none(), &a.journey, &a.path).cmp(&(b.read_back.is_none(), &b.journey, &b.path))
    });
    traces.truncate(FILES_MAX);
}

/// The files that were written and not read again, in one sentence without its end.
pub fn unread(traces: &[Trace]) -> Option<String> {
    let paths: BTreeSet<&str> =
        traces.iter().filter(|trace| trace.read_in.is_empty()).map(|trace| trace.path.as_str()).collect();
    let named: Vec<&str> = paths.iter().copied().take(NAMED_MAX).collect();
    let more = match paths.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = format!("written in workers, and not read again by any step: {}{more}", named.join(", "));
    (!named.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::watch::Touched;

    fn seen(files: &[(u32, &str, bool, bool)]) -> Seen {
        let touched = |(number, path, wrote, read): &(u32, &str, bool, bool)| Touched {
            number: *number,
            path: (*path).to_owned(),
            inode: (u64::from(*number), 1, 1),
            wrote: *wrote,
            read: *read,
        };
        Seen { files: files.iter().map(touched).collect(), is_cut: false }
    }

    fn traces(steps: &[&[(u32, &str, bool, bool)]]) -> Vec<Trace> {
        let mut traces = Traces::default();
        for (step, files) in steps.iter().enumerate() {
            traces.add(step, seen(files), |_| false);
        }
        traces.by_name("j", &Written::new(), &[])
    }

    #[test]
    fn what_a_later_step_reads_is_told_from_what_none_reads() {
        let found = traces(&[
            &[(1, "/boot", true, true)],
            &[(2, "/new.tmp", true, false), (3, "/log", true, false), (4, "/scratch", true, true)],
            &[(2, "/new", false, true), (3, "/log", true, false), (4, "/scratch", true, true)],
            &[(1, "/boot", false, true)],
        ]);
        let back: Vec<_> = found.iter().map(|trace| (trace.path.as_str(), trace.read_back)).collect();
        // What is written at start is the same in each worker, and one step may well read what itself has written.
        assert_eq!(back, [("/log", None), ("/new", Some((1, 2))), ("/scratch", None)]);
        assert!(found[1].warning().unwrap().contains("/new, which step 1 writes, is read again by step 2"));
        assert_eq!(unread(&found).unwrap(), "written in workers, and not read again by any step: /log");
    }

    #[test]
    fn a_file_that_was_renamed_has_its_last_name() {
        let mut traces = Traces::default();
        traces.add(1, seen(&[(7, "/a.tmp", true, false)]), |_| false);
        let entry = |inode| crate::disk::Entry {
            kind: Kind::File,
            size: 1,
            changed: std::time::Duration::ZERO,
            inode,
            at: "/nowhere".into(),
        };
        for (inode, expected) in [((7, 1, 1), "/a"), ((7, 2, 2), "/a.tmp"), ((8, 1, 1), "/a.tmp")] {
            let found = traces.by_name("j", &Written::from([("/a".into(), entry(inode))]), &[]);
            assert_eq!((found[0].path.as_str(), found[0].is_left), (expected, expected == "/a"));
        }
    }

    #[test]
    fn what_all_workers_have_is_in_doubt_though_it_is_removed_later() {
        let mut traces = Traces::default();
        for (step, (wrote, read), is_as_before) in [
            (1, (true, false), true),
            (2, (false, true), false),
            (3, (false, true), true),
            (4, (true, false), false),
        ] {
            traces.add(step, seen(&[(1, "/a", wrote, read)]), |_| is_as_before);
        }
        let found = traces.by_name("j", &Written::new(), &[]);
        assert_eq!((found[0].read_back, found[0].is_left), (Some((1, 3)), false));
        assert!(found[0].warning().is_none());
        assert_eq!(found[0].doubt().unwrap().0, 3);
    }

    #[test]
    fn another_file_of_the_same_name_is_another_file() {
        let found = traces(&[&[], &[(1, "/a", true, false)], &[(2, "/a", true, true)]]);
        assert_eq!((found.len(), found[0].read_back), (1, None));
        assert!(unread(&found).is_none());
    }

    #[test]
    fn what_a_finding_explains_is_not_said_again() {
        let mut finding = crate::proof::tests::proof().findings.remove(0);
        finding.kind = finding::Kind::File;
        (finding.producer.journey, finding.producer.step, finding.consumer.step) = ("j".into(), 1, 2);
        let steps: [&[_]; 4] = [
            &[],
            &[(1, "/a", true, false), (2, "/b", true, false)],
            &[(1, "/a", false, true)],
            &[(2, "/b", false, true)],
        ];
        let mut found = traces(&steps);
        settle(&mut found, &[finding]);
        let left: Vec<_> = found.iter().map(|trace| (trace.path.as_str(), trace.read_back)).collect();
        assert_eq!(left, [("/b", Some((1, 3))), ("/a", None)]);
    }
}

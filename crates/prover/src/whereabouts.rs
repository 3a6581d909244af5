//! Where the thing is kept that a step needs: the worker is killed and started again, with the same disk and with a new one.
//! What neither brings back was in memory, or was signed with a secret of boot; what only the same disk brings back is a file; and where only
//! a new one helps, what the killed worker left is in the way.

use crate::{
    disk::{Entry, Kind as Written},
    finding::{KeptFile, Kind},
    schedule::{Restart, Schedule},
    stage::{Run, Watch},
    trial::{Pair, Trial},
    worker::Error,
    world::entropy,
};

/// Where it is kept, and how that is known.
pub(crate) struct Whereabouts {
    pub(crate) kind: Kind,
    pub(crate) file: Option<KeptFile>,
    pub(crate) evidence: String,
}

/// Ends of names of files that nobody reads back; others come first.
const SELDOM_READ: [&str; 6] = [".log", ".pid", ".lock", ".pyc", ".tmp", "-journal"];

/// Finds it, by a few more runs.
pub(crate) fn find(trial: &Trial<'_>, pair: &Pair) -> Result<Whereabouts, Error> {
    let at = pair.consumer - 1;
    let same = Schedule::kill_after(at, pair.consumer, Restart::SameDisk);
    let new = Schedule::kill_after(at, pair.consumer, Restart::NewDisk);
    let fails = |schedule: &Schedule| -> Result<bool, Error> {
        Ok(trial.fails_at(schedule, &trial.play(schedule, None)?).is_some())
    };
    let (fails_with_same, fails_with_new) = (fails(&same)?, fails(&new)?);
    let own = |kind, file, evidence: &str| Whereabouts { kind, file, evidence: evidence.into() };
    if fails_with_same {
        // Who shows it between two workers that both live is not hindered by what one of them left.
        let is_hindered = !fails_with_new && pair.schedule.width == 1;
        let evidence = "after kill -9 it fails with the same disk and passes with a new one";
        return if is_hindered { Ok(own(Kind::LeftBehind, None, evidence)) } else { in_memory(trial, pair) };
    }
    match (fails_with_new, trial.stage.pool().yard().level().has_own_files()) {
        (true, true) => {}
        (true, false) => {
            let evidence = "after kill -9 it passes with the same copy of the folder and fails with a new one; which file it is cannot be \
                            told without overlays";
            return Ok(own(Kind::File, None, evidence));
        }
        (false, true) => {
            let evidence = "it passes after kill -9, with the same disk and with a new one";
            return Ok(own(Kind::Elsewhere, None, evidence));
        }
        (false, false) => {
            let evidence = "where it is kept is not known without overlays";
            return Ok(own(Kind::Elsewhere, None, evidence));
        }
    }
    let (file, is_read, others) = kept_file(trial, pair)?;
    let read = if is_read { format!(", and step {} reads it", pair.consumer) } else { String::new() };
    let named = match (&file, others) {
        (None, _) => "; which file is not known".into(),
        (Some(file), 0) => named(file) + &read,
        (Some(file), others) => format!("{}{read}; {others} more were written", named(file)),
    };
    let evidence = format!("after kill -9 it passes with the same disk and fails with a new one{named}");
    Ok(own(Kind::File, file, &evidence))
}

fn named(file: &KeptFile) -> String {
    match &file.canary {
        Some(canary) => format!(
            "; {} ({}, {} bytes) has {canary:?} of the journey in it",
            file.path, file.kind, file.bytes
        ),
        None => format!("; {} ({}, {} bytes) was written", file.path, file.kind, file.bytes),
    }
}

fn in_memory(trial: &Trial<'_>, pair: &Pair) -> Result<Whereabouts, Error> {
    let lost = "it fails after kill -9, also with the same disk";
    let in_kind = |kind, evidence: String| Ok(Whereabouts { kind, file: None, evidence });
    if pair.is_limit {
        return in_kind(Kind::RateLimit, lost.into());
    }
    if !entropy::IS_KNOWN || !trial.stage.pool().yard().level().has_own_files() {
        return in_kind(Kind::Memory, format!("{lost}; a secret of boot cannot be told from memory here"));
    }
    let run = match trial.play(&pair.schedule, Some(trial.stage.entropy())) {
        Ok(run) => run,
        // Some services do not start under a filter of system calls; that is no reason to prove nothing.
        Err(error) => {
            let why = format!("{lost}; a secret of boot cannot be told from memory here: {error}");
            return in_kind(Kind::Memory, why);
        }
    };
    match trial.fails_at(&pair.schedule, &run) {
        None => in_kind(
            Kind::BootSecret,
            format!("{lost}; it passes between workers that drew the same random numbers at boot"),
        ),
        Some(_) => in_kind(
            Kind::Memory,
            format!("{lost}, and also between workers that drew the same random numbers at boot"),
        ),
    }
}

/// The file that the producer wrote, most likely, whether the consumer was seen to read it, and how many others there are. Run once more on
/// one worker.
fn kept_file(trial: &Trial<'_>, pair: &Pair) -> Result<(Option<KeptFile>, bool, usize), Error> {
    let schedule = Schedule::single(pair.consumer);
    let watch = Watch { noted: Some((pair.producer, pair.producer)), ..Watch::default() };
    let run = trial.stage.play(&trial.journey, &schedule, &watch)?;
    let mut files = files(&run);
    let is_read = |file: &KeptFile| run.traces.is_read(&file.path, pair.consumer);
    files.sort_by_key(|file| {
        (!is_read(file), file.canary.is_none(), seldom_read(&file.path), file.path.clone())
    });
    let others = files.len().saturating_sub(1);
    let file = files.into_iter().next();
    let is_read = file.as_ref().is_some_and(is_read);
    Ok((file, is_read, others))
}

fn seldom_read(path: &str) -> bool {
    SELDOM_READ.iter().any(|end| path.ends_with(end))
}

/// What was written, with the run's own text that is in it.
fn files(run: &Run) -> Vec<KeptFile> {
    let is_kept = |entry: &Entry| matches!(entry.kind, Written::File | Written::Link);
    let files = run.written.iter().filter(|(_, entry)| is_kept(entry));
    files
        .map(|(path, entry)| KeptFile {
            path: path.display().to_string(),
            kind: entry.content(),
            bytes: entry.size,
            canary: entry.find(&run.canaries).map(str::to_owned),
        })
        .collect()
}

//! What workers do with files, as it is seen while they do it.

use std::{fs, path::Path};

use lethe_prover::{
    worker::Worker,
    world::{Level, watch::WatchMethod},
};

use crate::{Lab, ask};

pub fn what_is_done_with_files_is_seen(level: Level) {
    let lab = Lab::new(level);
    let watch_method = if level == Level::Overlay { WatchMethod::Fanotify } else { WatchMethod::Inotify };
    assert_eq!(lab.yard.watch_method(), watch_method, "{:?}", lab.yard.notices());
    fs::write(lab.file("before"), "before").unwrap();
    let a = lab.start();
    let done = || -> Vec<(String, bool, bool)> {
        let seen = a.seen().unwrap();
        assert!(!seen.is_cut);
        let home = lab.folder.path().canonicalize().unwrap();
        // Events may be read before or after a file gets its last name.
        let name = |path: &str| {
            let name = Path::new(path).strip_prefix(&home).ok()?.to_str()?;
            Some(name.trim_end_matches(".tmp").to_owned())
        };
        seen.files.iter().filter_map(|file| Some((name(&file.path)?, file.wrote, file.read))).collect()
    };
    assert_eq!(ask(&a, &format!("read {}", lab.file("before").display())), "before");
    assert_eq!(done(), [], "nothing is told of what no worker wrote");
    for name in ["photo", "before"] {
        assert_eq!(ask(&a, &format!("write {} x", lab.file(name).display())), "written");
    }
    assert_eq!(done(), [("photo".to_owned(), true, false), ("before".to_owned(), true, false)]);
    assert_eq!(ask(&a, &format!("read {}", lab.file("before").display())), "x");
    assert_eq!(done(), [("before".to_owned(), false, true)]);
    // A name that came later, and a file that is gone.
    assert_eq!(ask(&a, &format!("scratch {}", lab.file("new").display())), "done");
    assert_eq!(done(), [("new".to_owned(), true, false), ("new.gone".to_owned(), true, false)]);
    assert_eq!(ask(&a, &format!("read {}", lab.file("new").display())), "x");
    assert_eq!(done(), [("new".to_owned(), false, true)]);
}

/// Folders that were there and ones that were not, of a disk that is new and of one that is not.
pub fn files_are_seen_in_any_folder(level: Level) {
    let lab = Lab::new(level);
    let (there, new, later) = (lab.file("a/b/there"), lab.file("c/d/2"), lab.file("later"));
    fs::create_dir_all(lab.file("a/b")).unwrap();
    let told = |worker: &Worker| -> Vec<(String, bool, bool)> {
        let seen = worker.seen().unwrap();
        assert!(!seen.is_cut);
        seen.files.into_iter().map(|file| (file.path, file.wrote, file.read)).collect()
    };
    let of = |path: &Path, wrote: bool, read: bool| {
        (path.canonicalize().unwrap_or(path.to_owned()).to_string_lossy().into_owned(), wrote, read)
    };
    let a = lab.start();
    told(&a);
    assert_eq!(ask(&a, &format!("write {} x", there.display())), "written");
    assert_eq!(told(&a), [of(&there, true, false)]);
    assert_eq!(ask(&a, &format!("folders {} 2", lab.file("c/d").display())), "made");
    assert_eq!(told(&a), [of(&new, true, false)]);
    for path in [&there, &new] {
        assert_eq!(ask(&a, &format!("read {}", path.display())), "x");
        assert_eq!(told(&a), [of(path, false, true)]);
    }
    let again = lab.start_on(a.kill(), None);
    told(&again);
    for path in [&there, &new] {
        assert_eq!(ask(&again, &format!("read {}", path.display())), "x");
    }
    assert_eq!(told(&again), [], "whoever runs now has not written it");
    assert_eq!(ask(&again, &format!("scratch {}", later.display())), "done");
    let gone = lab.file("later.gone");
    let mut seen = told(&again);
    // What is gone may have been looked at before, or not.
    seen.sort();
    let later = [of(&later, true, false), of(&gone, true, false)];
    assert!(
        seen.len() == 2 && seen.iter().zip(&later).all(|(seen, of)| seen.0.starts_with(&of.0)),
        "{seen:?}"
    );
}

pub fn more_folders_than_are_watched_are_said(level: Level) {
    let lab = Lab::new(level);
    let a = lab.start();
    assert_eq!(ask(&a, &format!("folders {} 600", lab.file("many").display())), "made");
    // The kernel has no such bound for whole mounts.
    assert_eq!(a.seen().unwrap().is_cut, lab.yard.watch_method() == WatchMethod::Inotify);
    assert_eq!(ask(&a, &format!("write {} x", lab.file("photo").display())), "written");
    assert!(a.seen().unwrap().files.iter().any(|file| file.path.ends_with("/photo")));
}

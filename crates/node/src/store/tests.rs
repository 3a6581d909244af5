use std::{fs, path::Path, sync::Arc};

use super::{
    book::{Failure, Record},
    *,
};

/// Makes the release of this name with one file.
async fn make(store: &Store, key: &str, text: &str) -> Release {
    match store.find(key).await.unwrap() {
        Found::Whole => store.open(key).unwrap().unwrap(),
        Found::Absent(making) => {
            fs::create_dir(making.tree()).unwrap();
            fs::write(making.tree().join("file"), text).unwrap();
            store.finish(making, "here".into(), "1".into(), "2".into()).unwrap()
        }
    }
}

fn name(text: &str) -> String {
    key([text])
}

fn there(state: &Path) -> Vec<String> {
    let entries = fs::read_dir(state.join(RELEASES)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != BOOKS);
    names.sort();
    names
}

/// Tidies up until this is what is there. A process that another test is just starting has its claims too, for a moment.
fn swept(store: &Store, expected: impl Fn(Vec<String>) -> bool) {
    let began = std::time::Instant::now();
    loop {
        store.sweep();
        let there = there(store.state());
        if expected(there.clone()) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{there:?}");
        std::thread::yield_now();
    }
}

#[test]
fn parts_do_not_run_together() {
    assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
    assert_eq!(key(["a"]).len(), KEY_DIGITS);
}

#[tokio::test]
async fn what_is_whole_is_found_and_what_was_begun_is_not() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::new(state.path());
    let release = make(&store, &name("a"), "1").await;
    assert_eq!(fs::read_to_string(release.tree.join("file")).unwrap(), "1");
    assert_eq!(store.key_of(&release.tree.join("sub")), Some(&*name("a")));
    assert_eq!(store.key_of(Path::new("/elsewhere")), None);
    store.check(&name("a")).unwrap();
    assert_eq!(make(&store, &name("a"), "other").await, release);
    assert_eq!(fs::read_to_string(release.tree.join("file")).unwrap(), "1", "it was not made again");
    // As a process leaves it that is killed: a tree, and no marker.
    let half = state.path().join(RELEASES).join(name("half"));
    fs::create_dir_all(half.join(TREE)).unwrap();
    fs::write(half.join(TREE).join("left"), "").unwrap();
    assert_eq!(store.open(&name("half")).unwrap(), None);
    let release = make(&store, &name("half"), "2").await;
    assert!(!release.tree.join("left").exists());
}

#[tokio::test]
async fn who_asks_while_it_is_made_waits_for_it() {
    let state = tempfile::tempdir().unwrap();
    // Two stores are as two processes.
    let [one, other] = [(); 2].map(|()| Arc::new(Store::new(state.path())));
    let Found::Absent(making) = one.find(&name("a")).await.unwrap() else { panic!("it is not there") };
    let waiting = tokio::spawn({
        let other = Arc::clone(&other);
        async move { make(&other, &name("a"), "2").await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    fs::create_dir(making.tree()).unwrap();
    fs::write(making.tree().join("file"), "1").unwrap();
    one.finish(making, "here".into(), "1".into(), "2".into()).unwrap();
    let release = waiting.await.unwrap();
    assert_eq!(fs::read_to_string(release.tree.join("file")).unwrap(), "1");
    // One who gives up leaves it to the next.
    let Found::Absent(making) = one.find(&name("b")).await.unwrap() else { panic!("it is not there") };
    fs::create_dir(making.tree()).unwrap();
    drop(making);
    assert_eq!(there(state.path()), [name("a")]);
    make(&other, &name("b"), "2").await;
}

#[tokio::test]
async fn damage_is_seen_and_put_aside_while_others_use_it() {
    let state = tempfile::tempdir().unwrap();
    let [one, other] = [(); 2].map(|()| Store::new(state.path()));
    let release = make(&one, &name("a"), "1").await;
    assert!(other.open(&name("a")).unwrap().is_some());
    fs::remove_file(release.tree.join("file")).unwrap();
    let damage = one.check(&name("a")).unwrap_err();
    assert!(damage.contains("file"), "{damage}");
    one.put_aside(&name("a")).unwrap();
    let again = make(&one, &name("a"), "1").await;
    assert_eq!(again, release);
    one.check(&name("a")).unwrap();
    // The other one still holds what was put aside.
    one.sweep();
    assert_eq!(there(state.path()).len(), 2);
    drop(other);
    swept(&one, |there| there == [name("a")]);
    // Without its marker it is of no use, whoever holds it.
    let third = Store::new(state.path());
    assert!(third.open(&name("a")).unwrap().is_some());
    fs::remove_file(state.path().join(RELEASES).join(name("a")).join(MARKER)).unwrap();
    make(&one, &name("a"), "1").await;
    one.check(&name("a")).unwrap();
}

#[tokio::test]
async fn after_a_boot_the_content_is_compared() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::new(state.path());
    let release = make(&store, &name("a"), "1").await;
    let file = release.tree.join("file");
    let date = fs::metadata(&file).unwrap().modified().unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "2").unwrap();
    File::options().write(true).open(&file).unwrap().set_modified(date).unwrap();
    store.check(&name("a")).unwrap();
    let folder = state.path().join(RELEASES).join(name("a"));
    let marker = store.marker(&name("a")).unwrap();
    write_whole(&folder, &Marker { boot: "another".into(), ..marker }).unwrap();
    let damage = store.check(&name("a")).unwrap_err();
    assert!(damage.contains("content"), "{damage}");
}

#[tokio::test]
async fn the_last_of_each_service_and_what_is_in_use_stay() {
    let state = tempfile::tempdir().unwrap();
    let [store, other] = [(); 2].map(|()| Store::new(state.path()));
    let web = ServiceName::new("web").unwrap();
    let versions = ["1", "2", "3", "4", "5", "6", "7", "8"];
    for version in versions {
        make(&store, &name(version), version).await;
        store.note(&web, |book| book.used(record(version)));
    }
    // The first is in use by another process, the second by this one.
    other.open(&name("1")).unwrap().unwrap();
    let second = store.tree(&name("2"));
    // What a process has left that was killed while it fetched.
    fs::create_dir(state.path().join(RELEASES).join("fresh-1-1")).unwrap();
    let fresh = store.fresh().unwrap();
    let worker = store.worker_folder("web.1").unwrap();
    assert_eq!(store.key_of(&second), Some(&*name("2")));
    store.hold_only(&[name("2")].into());
    let mut expected = ["1", "2", "4", "5", "6", "7", "8"].map(name).to_vec();
    expected.push(fresh.path().file_name().unwrap().to_str().unwrap().into());
    expected.sort();
    swept(&store, |there| there == expected);
    assert!(worker.path().exists());
    drop((fresh, other));
    store.hold_only(&BTreeSet::new());
    swept(&store, |there| there.len() == book::RELEASES_KEPT);
    assert_eq!(store.book(&web).releases.len(), book::RELEASES_KEPT);
}

#[test]
fn a_book_knows_what_failed_until_it_is_used() {
    let state = tempfile::tempdir().unwrap();
    let (store, web) = (Store::new(state.path()), ServiceName::new("web").unwrap());
    let failure = Failure { source: "here".into(), recipe: "b".into(), version: "1".into() };
    store.note(&web, |book| book.failed(failure));
    let book = store.book(&web);
    assert!(book.has_failed("here", "b", "1"));
    assert!(!book.has_failed("here", "b", "2") && !book.has_failed("here", "c", "1"));
    store.note(&web, |book| book.used(Record { recipe: "b".into(), ..record("1") }));
    assert!(!store.book(&web).has_failed("here", "b", "1"));
}

/// What it does not name would be removed.
#[tokio::test]
async fn a_damaged_book_costs_no_release_and_is_not_written_over() {
    let state = tempfile::tempdir().unwrap();
    let (store, web) = (Store::new(state.path()), ServiceName::new("web").unwrap());
    make(&store, &name("1"), "1").await;
    store.note(&web, |book| book.used(record("1")));
    store.hold_only(&BTreeSet::new());
    let path = state.path().join(RELEASES).join(BOOKS).join("web.json");
    fs::write(&path, "{ half").unwrap();
    store.sweep();
    assert!(store.tree(&name("1")).exists());
    store.note(&web, |book| book.used(record("2")));
    assert_eq!(fs::read_to_string(&path).unwrap(), "{ half");
    assert!(store.book(&web).releases.is_empty());
}

#[test]
fn what_was_good_outlives_any_number_of_bad_ones() {
    let mut book = book::Book::default();
    book.used(record("good"));
    // The same by another name, as after a rollback.
    book.used(Record { source: "here#good".into(), ..record("good") });
    for version in 0..20 {
        let bad = record(&version.to_string());
        book.used(bad.clone());
        book.failed(Failure { source: bad.source, recipe: bad.recipe, version: bad.revision });
    }
    assert_eq!(book.of("here", "").map(|record| &*record.revision).collect::<Vec<_>>(), ["good"]);
    assert_eq!(book.releases.len(), book::RELEASES_KEPT + 1);
}

fn record(text: &str) -> Record {
    Record {
        key: name(text),
        source: "here".into(),
        recipe: String::new(),
        revision: text.into(),
        mark: Some(text.into()),
        tree: String::new(),
        used_at: 0,
    }
}

use std::process::Command;

use super::*;

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let path = |name: &str| tree.path().join(name);
    fs::create_dir_all(path("sub/empty")).unwrap();
    fs::create_dir(path(".git")).unwrap();
    fs::write(path(".git/config"), "url = https://me:pw@h").unwrap();
    fs::write(path("sub/app.py"), "print()").unwrap();
    fs::write(path("sub-b"), "between sub and sub/ in the order of bytes").unwrap();
    fs::write(path("line\nend"), "an odd name").unwrap();
    fs::set_permissions(path("sub/app.py"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path("large"), vec![7; COPIED_BYTES_MAX as usize + 1]).unwrap();
    symlink("sub/app.py", path("link")).unwrap();
    tree
}

#[test]
fn the_digest_is_what_the_documented_program_computes() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sources.md")).unwrap();
    let program = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let tree = tree();
    let output = Command::new("python3").arg("-c").arg(program).arg(tree.path()).output().unwrap();
    let computed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(computed.trim(), Manifest::of(tree.path()).unwrap().digest(), "{:?}", output.stderr);
}

#[test]
fn the_digest_is_of_names_contents_links_and_what_may_be_executed() {
    let tree = tree();
    let digest = || Manifest::of(tree.path()).unwrap().digest();
    let before = digest();
    let path = |name: &str| tree.path().join(name);
    File::options().write(true).open(path("sub-b")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::set_permissions(path("sub-b"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path(".git/more"), "").unwrap();
    assert_eq!(digest(), before, "dates, other permissions and .git are not part of it");
    let mut seen = vec![before];
    let mut changes: Vec<Box<dyn Fn()>> = Vec::new();
    changes.push(Box::new(|| fs::write(path("sub-b"), "other").unwrap()));
    changes.push(Box::new(|| fs::rename(path("sub-b"), path("sub-c")).unwrap()));
    changes.push(Box::new(|| fs::set_permissions(path("sub-c"), fs::Permissions::from_mode(0o700)).unwrap()));
    changes.push(Box::new(|| fs::remove_dir(path("sub/empty")).unwrap()));
    changes.push(Box::new(|| {
        fs::remove_file(path("link")).unwrap();
        symlink("sub-c", path("link")).unwrap();
    }));
    for change in changes {
        change();
        let now = digest();
        assert!(!seen.contains(&now));
        seen.push(now);
    }
}

#[test]
fn what_is_written_is_read() {
    let (tree, place) = (tree(), tempfile::tempdir().unwrap());
    let manifest = Manifest::of(tree.path()).unwrap();
    let file = place.path().join("manifest");
    manifest.write(File::create(&file).unwrap()).unwrap();
    assert_eq!(Manifest::read(File::open(&file).unwrap()).unwrap(), manifest);
    let text = fs::read(&file).unwrap();
    fs::write(&file, &text[..text.len() - 3]).unwrap();
    assert!(Manifest::read(File::open(&file).unwrap()).is_err());
    let up = text.windows(5).position(|word| word == b"sub-b").unwrap();
    let mut evil = text.clone();
    evil[up..up + 5].copy_from_slice(b"../ub");
    fs::write(&file, evil).unwrap();
    assert!(Manifest::read(File::open(&file).unwrap()).is_err(), "a path never leads out of the tree");
}

#[test]
fn damage_is_seen_and_additions_are_none() {
    let harm: [fn(&Path); 5] = [
        |tree| fs::remove_file(tree.join("sub/app.py")).unwrap(),
        |tree| fs::write(tree.join("sub/app.py"), "longer than it was").unwrap(),
        |tree| fs::set_permissions(tree.join("sub/app.py"), fs::Permissions::from_mode(0o644)).unwrap(),
        |tree| {
            fs::remove_file(tree.join("link")).unwrap();
            fs::write(tree.join("link"), "sub/app.py").unwrap();
        },
        |tree| fs::remove_dir(tree.join("sub/empty")).unwrap(),
    ];
    for harm in harm {
        let tree = tree();
        let manifest = Manifest::of(tree.path()).unwrap();
        fs::write(tree.path().join("sub/added"), "").unwrap();
        assert_eq!(manifest.damage_in_full(tree.path()), None);
        harm(tree.path());
        let damage = manifest.damage(tree.path()).unwrap();
        assert!(damage.contains("sub") || damage.contains("link"), "{damage}");
    }
    // What size and date do not tell, the content does.
    let tree = tree();
    let manifest = Manifest::of(tree.path()).unwrap();
    let file = tree.path().join("sub/app.py");
    let date = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "prinT()").unwrap();
    File::options().write(true).open(&file).unwrap().set_modified(date).unwrap();
    assert_eq!(manifest.damage(tree.path()), None);
    assert!(manifest.damage_in_full(tree.path()).unwrap().contains("content"));
}

#[test]
fn a_copy_is_a_workers_own() {
    let (tree, place) = (tree(), tempfile::tempdir().unwrap());
    let manifest = Manifest::of(tree.path()).unwrap();
    manifest.make_read_only(tree.path()).unwrap();
    fs::write(tree.path().join("sub/added"), "").unwrap();
    let [one, other] = ["one", "other"].map(|name| {
        let folder = place.path().join(name);
        fs::create_dir(&folder).unwrap();
        manifest.copy(tree.path(), &folder).unwrap();
        folder
    });
    assert!(!one.join("sub/added").exists(), "only what was released");
    assert_eq!(Manifest::of(&one).unwrap().digest(), manifest.digest());
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(tree.path().join("sub-b")), mode(one.join("sub-b"))), (0o444, 0o644));
    let date = |folder: &Path| modified(&fs::metadata(folder.join("sub/app.py")).unwrap());
    assert_eq!(date(&one), date(tree.path()), "compiled caches stay valid");
    // Written into, replaced, removed, added: nobody else sees it.
    fs::write(one.join("sub/app.py"), "mine").unwrap();
    fs::remove_file(one.join("large")).unwrap();
    fs::write(one.join("large"), "mine").unwrap();
    fs::write(one.join("sub/__pycache__"), "").unwrap();
    assert_eq!(manifest.damage_in_full(tree.path()), None);
    assert_eq!(Manifest::of(&other).unwrap().digest(), manifest.digest());
    // A damaged tree is not copied.
    fs::remove_file(tree.path().join("sub-b")).unwrap();
    let third = place.path().join("third");
    fs::create_dir(&third).unwrap();
    assert!(manifest.copy(tree.path(), &third).is_err());
}

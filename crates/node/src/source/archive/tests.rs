use std::{io::Write, os::unix::fs::MetadataExt};

use tar::{Builder, Header};

use super::*;
use crate::source::BOUNDS;

/// A place with an archive of these members.
struct Lab {
    place: tempfile::TempDir,
}

/// One member: kind, name, where it leads to, content.
type Member<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

impl Lab {
    fn new() -> Self {
        let lab = Self { place: tempfile::tempdir().unwrap() };
        fs::create_dir(lab.tree()).unwrap();
        lab
    }

    fn tree(&self) -> PathBuf {
        self.place.path().join("tree")
    }

    fn unpack(&self, archive: &[u8], bounds: Bounds) -> Result<(), Fault> {
        let file = self.place.path().join("archive");
        fs::write(&file, archive).unwrap();
        unpack(&file, &self.tree(), bounds)
    }

    /// Refused for this, and nothing was written beside the tree.
    fn refuses(members: &[Member<'_>], part: &str) {
        let lab = Self::new();
        let fault = lab.unpack(&packed(members), BOUNDS).unwrap_err();
        assert!(matches!(&fault, Fault::Refused(why) if why.contains(part)), "{members:?}: {fault:?}");
        let mut beside: Vec<_> =
            fs::read_dir(lab.place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["archive", "tree"], "{members:?}");
    }
}

/// With names as they are, which the builder would refuse.
fn packed(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, link, content) in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o6755);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;
const FOLDER: EntryType = EntryType::Directory;

#[test]
fn what_is_sound_is_unpacked_as_it_was() {
    let lab = Lab::new();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let mut members = packed(&[
        (FOLDER, "./bin/", "", b""),
        (FILE, "./bin/app", "", b"one"),
        (LINK, "app", "bin/../bin/app", b""),
        (HARD, "copy", "bin/app", b""),
        (FILE, "twice", "", b"old"),
        (FILE, "twice", "", b"new"),
    ]);
    // Long names have a member of their own before them.
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    builder.append_data(&mut header, &long, &b"long"[..]).unwrap();
    // The two blocks of zeros at the end of the first.
    members.truncate(members.len() - 1024);
    members.extend(builder.into_inner().unwrap());
    lab.unpack(&members, BOUNDS).unwrap();
    let read = |name: &str| fs::read_to_string(lab.tree().join(name)).unwrap();
    assert_eq!(
        [read("bin/app"), read("app"), read("copy"), read("twice"), read(&long)].concat(),
        "oneoneonenewlong"
    );
    let app = fs::metadata(lab.tree().join("bin/app")).unwrap();
    assert_eq!((app.mode() & 0o7777, app.mtime()), (0o755, 1_000_000_000), "no setuid, and its date");
    assert_eq!(app.nlink(), 1, "two names for one file would be changed together");
}

#[test]
fn every_compression_as_the_programs_make_it() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("app.py"), "print()").unwrap();
    for (option, name) in [("-c", "a.tar"), ("-cz", "a.tar.gz"), ("-cJ", "a.tar.xz"), ("-cj", "a.tar.bz2")] {
        let tar = Command::new("tar").current_dir(&place).args([option, "-f", name, "app.py"]).status();
        assert!(tar.unwrap().success(), "{name}");
    }
    let zstd = Command::new("zstd").current_dir(&place).args(["-q", "a.tar"]).status();
    assert!(zstd.unwrap().success());
    for name in ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2", "a.tar.zst"] {
        let lab = Lab::new();
        unpack(&place.path().join(name), &lab.tree(), BOUNDS).unwrap();
        assert_eq!(fs::read_to_string(lab.tree().join("app.py")).unwrap(), "print()", "{name}");
    }
}

#[test]
fn nothing_gets_out_of_the_tree() {
    Lab::refuses(&[(FILE, "../evil", "", b"x")], "goes up");
    Lab::refuses(&[(FILE, "a/../../evil", "", b"x")], "goes up");
    Lab::refuses(&[(FILE, "/tmp/evil", "", b"x")], "begins at the root");
    Lab::refuses(&[(LINK, "out", "..", b"")], "link out of the archive");
    Lab::refuses(&[(LINK, "out", "/etc", b"")], "link out of the archive");
    Lab::refuses(&[(LINK, "a/out", "../../x", b"")], "link out of the archive");
    // A link that is harmless by itself, and a file that would go through it.
    Lab::refuses(&[(LINK, "dir", ".", b""), (FILE, "dir/evil", "", b"x")], "through a link");
    Lab::refuses(&[(LINK, "dir", "x", b""), (FOLDER, "dir", "", b"")], "through a link");
    // Each stays inside by its words, together they do not.
    Lab::refuses(
        &[(FOLDER, "a/b", "", b""), (LINK, "a/b/up", "..", b""), (LINK, "out", "a/b/up/../..", b"")],
        "leads out",
    );
    Lab::refuses(&[(HARD, "passwd", "/etc/passwd", b"")], "begins at the root");
    Lab::refuses(&[(HARD, "passwd", "../archive", b"")], "goes up");
    Lab::refuses(&[(LINK, "l", "f", b""), (HARD, "h", "l", b"")], "through a link");
    Lab::refuses(&[(FILE, "f", "", b"x"), (FILE, "f/g", "", b"x")], "inside of a file");
}

#[test]
fn devices_and_pipes_are_refused() {
    Lab::refuses(&[(EntryType::Char, "null", "", b"")], "is a device");
    Lab::refuses(&[(EntryType::Block, "sda", "", b"")], "is a device");
    Lab::refuses(&[(EntryType::Fifo, "pipe", "", b"")], "is a named pipe");
    Lab::refuses(&[(EntryType::GNUSparse, "sparse", "", b"")], "damaged");
}

#[test]
fn bombs_are_bounded() {
    let lab = Lab::new();
    let bounds = Bounds { entries_max: 2, bytes_max: 1000 };
    let three = [(FILE, "a", "", &b""[..]), (FILE, "b", "", b""), (FILE, "c", "", b"")];
    let fault = lab.unpack(&packed(&three), bounds).unwrap_err();
    assert!(matches!(&fault, Fault::Refused(why) if why.contains("more than 2 files")), "{fault:?}");

    let lab = Lab::new();
    let large = packed(&[(FILE, "a", "", &[0; 600]), (FILE, "b", "", &[0; 600])]);
    let fault = lab.unpack(&large, bounds).unwrap_err();
    assert!(matches!(&fault, Fault::Refused(why) if why.contains("more than 1000 bytes")), "{fault:?}");
    assert!(!lab.tree().join("b").exists(), "it is refused before it is written");

    // One file over and over by hard links.
    let lab = Lab::new();
    let many = packed(&[(FILE, "a", "", &[0; 600]), (HARD, "b", "a", b"")]);
    assert!(matches!(lab.unpack(&many, bounds), Err(Fault::Refused(_))));

    // A name of some megabytes, well compressed.
    let lab = Lab::new();
    let name = vec![b'n'; 4 << 20];
    let long = packed(&[(EntryType::GNULongName, "././@LongLink", "", &name), (FILE, "a", "", b"")]);
    let fault = lab.unpack(&long, BOUNDS).unwrap_err();
    assert!(matches!(&fault, Fault::Refused(why) if why.contains("too long")), "{fault:?}");
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    for (bytes, part) in [
        (&b"PK\x03\x04rest"[..], "zip"),
        (b"", "nothing in it"),
        (&[7; 2000], "no tar archive"),
        (b"\x1f\x8bnot really", "gzip cannot unpack it"),
    ] {
        let fault = Lab::new().unpack(bytes, BOUNDS).unwrap_err();
        assert!(matches!(&fault, Fault::Refused(why) if why.contains(part)), "{part}: {fault:?}");
    }
    // Cut short in the middle of a member.
    let whole = packed(&[(FILE, "a", "", &[1; 5000])]);
    assert!(Lab::new().unpack(&whole[..2000], BOUNDS).is_err());
    let mut gzip =
        Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(&whole).unwrap();
    let packed = gzip.wait_with_output().unwrap().stdout;
    let fault = Lab::new().unpack(&packed[..packed.len() - 10], BOUNDS).unwrap_err();
    assert!(matches!(&fault, Fault::Refused(why) if why.contains("gzip")), "{fault:?}");
}

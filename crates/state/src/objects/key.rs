//! What a blob's object is called: folder, bucket and key, as they are wherever that can be. What cannot stand in the name of
//! an object is escaped so that names sort as keys do, byte by byte, and begin alike when keys do.
//!
//! Escaped are characters that XML does not carry or may trim, up to the space, `!` and `~` (which the escapes begin with), and
//! segments that servers or programs on the way resolve: `.`, `..` and empty ones. A store whose names are those of Windows takes `\`
//! for `/` and sorts by the units of UTF-16: there `\` is escaped too, `[` for the room that this takes, and what is beyond U+FFFF,
//! which would be sorted before U+E000.

use object_store::path::Path;

use crate::{blobs::BUCKET_NAME_BYTES_MAX, error::Error, rules::check_name};

/// Longest name of an object, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 1024;
/// Most segments of a name of Windows ("Naming and referencing containers, blobs, and metadata" of Azure's REST API).
const SEGMENTS_MAX: usize = 254;
/// Longest folder, in bytes. With it, a bucket and escapes of each character, keys of
/// [`KEY_BYTES_SURE`](crate::blobs::KEY_BYTES_SURE) fit into a name.
pub(crate) const FOLDER_BYTES_MAX: usize = 128;

const _: () = assert!(
    FOLDER_BYTES_MAX + 1 + BUCKET_NAME_BYTES_MAX + 1 + 3 * crate::blobs::KEY_BYTES_SURE < NAME_BYTES_MAX
);

/// Stands where a key ends with a `/`. It sorts before all escapes.
const END: &str = "!";
/// A `.` that begins a segment.
const DOT: &str = ".e";
/// An empty segment. It sorts behind [`DOT`], as `/` does behind `.`, and before all else that may stand there.
const EMPTY: &str = ".f";
/// Stand for `[` and `\` in names of Windows. What sorts before them still does, and so does what sorts behind.
const BRACKET: &str = "[a";
const BACKSLASH: &str = "[b";
/// Begins the escapes of U+FFFD, U+FFFE and U+FFFF, of which XML carries the first alone, and in names of Windows of all that is behind.
const LAST: char = '\u{fffd}';

/// The names of a folder's objects.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The folder, empty or with a `/` at its end.
    folder: String,
    /// Whether the store's names are those of Windows.
    is_windows: bool,
}

impl Names {
    /// Those in a folder, which may be empty.
    pub(crate) fn new(folder: &str) -> Self {
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        Self { folder, is_windows: false }
    }

    /// The same in a store whose names are those of Windows.
    #[cfg(feature = "azure")]
    pub(crate) fn of_windows(self) -> Self {
        Self { is_windows: true, ..self }
    }

    /// What the names of all objects begin with, if anything.
    pub(super) fn folder(&self) -> Option<&str> {
        Some(self.folder.as_str()).filter(|folder| !folder.is_empty())
    }

    /// Where an object is that is no blob's.
    pub(super) fn beside(&self, name: &str) -> Result<Path, Error> {
        Path::parse(format!("{}{name}", self.folder)).map_err(|error| Error::Invalid(error.to_string()))
    }

    /// Where a blob's object is.
    pub(crate) fn object(&self, bucket: &str, key: &str) -> Result<Path, Error> {
        let name = self.after(bucket, key);
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "the name of the blob's object (folder, bucket and escaped key)",
                size: name.len() as u64,
                max: NAME_BYTES_MAX as u64,
            });
        }
        let segments = name.split('/').count();
        if self.is_windows && segments > SEGMENTS_MAX {
            return Err(Error::TooLarge {
                what: "the number of parts between `/` in the name of the blob's object",
                size: segments as u64,
                max: SEGMENTS_MAX as u64,
            });
        }
        Path::parse(&name).map_err(|error| Error::Invalid(error.to_string()))
    }

    /// What the names of all blobs begin with whose keys begin with `prefix`.
    pub(super) fn prefix(&self, bucket: &str, prefix: &str) -> String {
        format!("{}{bucket}/{}", self.folder, self.escaped(prefix))
    }

    /// The name behind which those of all greater keys are.
    pub(super) fn after(&self, bucket: &str, key: &str) -> String {
        format!("{}{bucket}/{}", self.folder, self.whole(key))
    }

    /// The key of a bucket's object; `None` for what is no blob's.
    pub(super) fn key(&self, bucket: &str, name: &Path) -> Option<String> {
        let name = name.as_ref().strip_prefix(&self.folder)?.strip_prefix(bucket)?.strip_prefix('/')?;
        let key = self.read(name)?;
        (self.whole(&key) == name).then_some(key)
    }

    /// The bucket and key of a blob's object; `None` for what is no blob's.
    pub(super) fn blob(&self, name: &Path) -> Option<(String, String)> {
        let (bucket, _) = name.as_ref().strip_prefix(&self.folder)?.split_once('/')?;
        check_name("bucket", bucket, BUCKET_NAME_BYTES_MAX).ok()?;
        Some((bucket.to_owned(), self.key(bucket, name)?))
    }

    /// A key, escaped.
    fn whole(&self, key: &str) -> String {
        let end = if key.ends_with('/') { END } else { "" };
        self.escaped(key) + end
    }

    /// The beginning of a key, escaped.
    fn escaped(&self, key: &str) -> String {
        let mut name = String::with_capacity(key.len() + 8);
        let mut is_start = true;
        for char in key.chars() {
            match char {
                '/' if is_start => name.extend([EMPTY, "/"]),
                '.' if is_start => name.push_str(DOT),
                ..='!' => push_hex(&mut name, '!', char),
                '~' | '\u{7f}' => push_hex(&mut name, '~', char),
                '[' if self.is_windows => name.push_str(BRACKET),
                '\\' if self.is_windows => name.push_str(BACKSLASH),
                LAST => name.extend([LAST, 'd']),
                '\u{fffe}' => name.extend([LAST, 'e']),
                '\u{ffff}' => name.extend([LAST, 'f']),
                '\u{10000}'.. if self.is_windows => name.extend([LAST, 'g', char]),
                char => name.push(char),
            }
            is_start = char == '/';
        }
        name
    }

    /// Undoes the escapes.
    fn read(&self, name: &str) -> Option<String> {
        let mut key = String::with_capacity(name.len());
        let mut rest = name;
        let mut is_start = true;
        while let Some(char) = rest.chars().next() {
            if is_start && let Some(behind) = rest.strip_prefix(DOT) {
                key.push('.');
                (rest, is_start) = (behind, false);
                continue;
            }
            if is_start && let Some(behind) = rest.strip_prefix(EMPTY) {
                // The `/` behind it is read next.
                (rest, is_start) = (behind, false);
                continue;
            }
            if is_start && rest == END {
                return Some(key);
            }
            let taken = match char {
                '[' if self.is_windows => {
                    key.push(match rest.as_bytes().get(1)? {
                        b'a' => '[',
                        b'b' => '\\',
                        _ => return None,
                    });
                    2
                }
                '!' | '~' => {
                    let code = u8::from_str_radix(rest.get(1..3)?, 16).ok()?;
                    key.push(char::from(code));
                    3
                }
                LAST => {
                    let last = rest.as_bytes().get(LAST.len_utf8())?;
                    key.push(match last {
                        b'd' => LAST,
                        b'e' => '\u{fffe}',
                        b'f' => '\u{ffff}',
                        b'g' if self.is_windows => rest.get(LAST.len_utf8() + 1..)?.chars().next()?,
                        _ => return None,
                    });
                    LAST.len_utf8() + 1 + if *last == b'g' { 4 } else { 0 }
                }
                char => {
                    key.push(char);
                    char.len_utf8()
                }
            };
            rest = rest.get(taken..)?;
            is_start = char == '/';
        }
        (!key.is_empty()).then_some(key)
    }
}

fn push_hex(name: &mut String, lead: char, char: char) {
    let digit = |value: u32| char::from_digit(value & 0xf, 16).unwrap_or('0');
    name.extend([lead, digit(u32::from(char) >> 4), digit(u32::from(char))]);
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn name(key: &str) -> String {
        let name = Names::new("").object("b", key).unwrap();
        name.as_ref().strip_prefix("b/").unwrap().to_owned()
    }

    #[test]
    fn plain_keys_are_names_as_they_are() {
        for key in ["a", "photos/2026/one.jpg", "a.b", "a%2Fb", "é", "日本語", "a+b?c=d&e", "{}", "a_b-c"]
        {
            assert_eq!(name(key), key);
        }
        for (key, expected) in [
            ("a b", "a!20b"),
            (".", ".e"),
            ("..", ".e."),
            ("a/../b", "a/.e./b"),
            (".hidden", ".ehidden"),
            ("/", ".f/!"),
            ("//", ".f/.f/!"),
            ("a//b", "a/.f/b"),
            ("a/", "a/!"),
            ("~", "~7e"),
            ("\n", "!0a"),
            ("\u{ffff}", "\u{fffd}f"),
        ] {
            assert_eq!(name(key), expected, "{key:?}");
        }
    }

    #[test]
    fn what_is_no_blobs_object_is_no_key() {
        let names = Names::new("in/here");
        let key = |name: &str| names.key("b", &Path::parse(name).unwrap());
        assert_eq!(key("in/here/b/a!20b").as_deref(), Some("a b"));
        for name in [
            "in/here/b",
            "in/here/c/a",
            "b/a",
            "in/here/b/a!",
            "in/here/b/!zz",
            "in/here/b/!41",
            "in/here/b/a b",
        ] {
            assert_eq!(key(name), None, "{name}");
        }
    }

    #[cfg(feature = "azure")]
    #[test]
    fn names_of_windows_have_more_escapes() {
        let names = Names::new("f").of_windows();
        for (key, expected) in
            [("a\\b", "f/b/a[bb"), ("[a]", "f/b/[aa]"), ("\\", "f/b/[b"), ("a🦀", "f/b/a\u{fffd}g🦀")]
        {
            let object = names.object("b", key).unwrap();
            assert_eq!((object.as_ref(), names.key("b", &object).as_deref()), (expected, Some(key)));
        }
        let deep = names.object("b", &"a/".repeat(300)).unwrap_err();
        assert!(matches!(deep, Error::TooLarge { max: 254, .. }), "{deep:?}");
        for name in ["f/b/[c", "f/b/🦀", "f/b/\u{fffd}g", "f/b/\u{fffd}ga"] {
            assert_eq!(names.key("b", &Path::parse(name).unwrap()), None, "{name}");
        }
        assert_eq!(Names::new("f").object("b", "a\\b").unwrap().as_ref(), "f/b/a\\b");
    }

    #[test]
    fn an_object_names_its_bucket_and_key() {
        let names = Names::new("in/here");
        let blob = |name: &str| names.blob(&Path::parse(name).unwrap());
        assert_eq!(blob("in/here/b/a!20b/c"), Some(("b".into(), "a b/c".into())));
        for name in ["in/here/.lethe/a", "in/here/B/a", "in/here/b", "b/a", "in/here/b/a b"] {
            assert_eq!(blob(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_has_a_limit() {
        let names = Names::new(&"f".repeat(FOLDER_BYTES_MAX));
        let bucket = "b".repeat(BUCKET_NAME_BYTES_MAX);
        assert!(names.object(&bucket, &"\u{1}".repeat(crate::blobs::KEY_BYTES_SURE)).is_ok());
        let error = names.object(&bucket, &"k".repeat(1024)).unwrap_err();
        assert!(matches!(error, Error::TooLarge { max: 1024, .. }), "{error:?}");
    }

    /// Keys of few characters, so that they often begin alike.
    fn keys() -> impl Strategy<Value = String> {
        let chars =
            "/.!~-0efabZ[\\] \u{1}\u{7f}é\u{fffd}\u{fffe}\u{ffff}\u{10ffff}".chars().collect::<Vec<_>>();
        vec(select(chars), 1..7).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn names_sort_and_begin_as_their_keys_do(one in keys(), other in keys(), is_windows in any::<bool>()) {
            let names = Names::new("f");
            let names = Names { is_windows, ..names };
            let (first, second) = (names.after("b", &one), names.after("b", &other));
            prop_assert_eq!(first.cmp(&second), one.cmp(&other));
            if is_windows {
                prop_assert_eq!(first.encode_utf16().cmp(second.encode_utf16()), one.cmp(&other));
            }
            let begins = names.whole(&one).starts_with(&names.escaped(&other));
            prop_assert_eq!(begins, one.starts_with(&other), "{:?} {:?}", one, other);
            let object = names.object("b", &one).unwrap();
            prop_assert_eq!(object.as_ref(), names.after("b", &one));
            prop_assert_eq!(names.key("b", &object), Some(one));
        }
    }
}

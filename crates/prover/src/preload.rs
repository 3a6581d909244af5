//! What Node.js loads before a service whose random numbers of boot are to come again. Its own generator mixes the time
//! into what the kernel gives, so here the functions are replaced until the service listens.

use std::path::Path;

/// The script.
pub fn script(seed: u64) -> String {
    include_str!("preload.cjs").replace("SEED", &seed.to_string())
}

/// `NODE_OPTIONS` with the script, after what there is already. In quotes a path may have spaces, and only these two are
/// escaped (Node.js's manual, "`NODE_OPTIONS=options...`").
pub fn options(script: &Path) -> String {
    let before = std::env::var("NODE_OPTIONS").unwrap_or_default();
    let path = script.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    format!("{before} --require=\"{path}\"").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_have_anything_in_them() {
        let options = options(Path::new("/a b/c\"d\\e.cjs"));
        assert!(options.ends_with(r#"--require="/a b/c\"d\\e.cjs""#), "{options}");
    }
}

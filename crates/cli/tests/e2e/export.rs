//! `lethe export`: what the binary writes, and where.

use std::{fs, path::Path};

use anyhow::ensure;

use crate::lethe::Place;

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../export/tests/golden").join(name)
}

#[test]
fn files_are_written_and_notices_told_apart() -> anyhow::Result<()> {
    let place = Place::new()?;
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    let shop = shop.to_str().unwrap_or_default();
    let folder = place.path().join("out/k8s");
    let out = folder.to_str().unwrap_or_default();
    let written =
        place.run(&["export", "kubernetes", shop, "--image", "registry.example/shop:1.4", "-o", out])?;
    ensure!(written.status.success(), "{written:?}");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let kept = golden("kubernetes-shop").join(entry.file_name());
        ensure!(fs::read(entry.path())? == fs::read(kept)?, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap_or_default());
    }
    names.sort();
    ensure!(names == ["ingress.yaml", "shop.yaml"], "{names:?}");
    let said = String::from_utf8(written.stderr)?;
    let notices = fs::read_to_string(golden("kubernetes-shop").join("notices.txt"))?;
    let expected: String = notices.lines().map(|notice| format!("note: {notice}\n")).collect();
    ensure!(said == expected, "{said}");

    let printed = place.run(&["export", "aws", shop])?;
    ensure!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout)?;
    for file in ["variables.tf", "main.tf", "user-data.sh"] {
        let kept = fs::read_to_string(golden("aws-shop").join(file))?;
        ensure!(text.contains(&format!("# {file}\n{}", kept.trim_end())), "{file}\n{text}");
    }

    let refused = place.run(&["export", "kubernetes", shop, "--with-lethe"])?;
    ensure!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{refused:?}");
    let why = String::from_utf8(refused.stderr)?;
    ensure!(why.contains("would be kept in a folder of each pod") && why.contains("[state]"), "{why}");
    Ok(())
}

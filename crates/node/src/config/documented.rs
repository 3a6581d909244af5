//! What `docs/configuration.md` and the README say of `lethe.toml`, held against what is read: each key is there, each
//! default is the default in fact, and each example is a good file.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    Errors, file, idempotency, interruption, limit, limits, resources, rollout, route, scale, service, state,
    tls,
};

const SERVICE: &str = "[services.shop]\ncommand = 'sh'\n";

fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

/// The rows of the table under a heading, each as its cells.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading)).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split(" | ").collect()).collect()
}

/// What is read of a file, in words; but for where in the file it stands.
fn read(toml: &str, folder: &Path) -> String {
    match file::read(toml, "lethe.toml", folder) {
        Ok(mut draft) => {
            draft.services.iter_mut().for_each(|service| service.command_quote = None);
            let places = (draft.listen, draft.admin, draft.state_dir, draft.placement, draft.tls.is_some());
            let words =
                (draft.proxy_protocol, draft.trusted_proxies, draft.via, draft.access_log, draft.cores);
            format!("{:?}", (places, words, draft.limits, draft.interruption, draft.routes, draft.services))
        }
        Err(problems) => panic!("{toml}\n{}", Errors(problems)),
    }
}

#[test]
fn every_key_and_its_default() {
    let (page, folder) = (page("docs/configuration.md"), Path::new("/srv/shop"));
    // Each with what stands before its keys, and after them.
    for (heading, keys, before, after) in [
        ("The whole file", &file::KEYS[..], "", SERVICE),
        ("`[services.NAME]`", service::KEYS, SERVICE, ""),
        ("`[[routes]]`", &route::KEYS, &format!("{SERVICE}[[routes]]\n"), ""),
        (
            "`limit` of a route",
            &limit::KEYS,
            &format!("{SERVICE}[[routes]]\n[routes.limit]\nrate = '5/s'\n"),
            "",
        ),
        (
            "`idempotency` of a route",
            &idempotency::KEYS,
            &format!("{SERVICE}[[routes]]\n[routes.idempotency]\n"),
            "",
        ),
        ("`rollout` of a service", &rollout::KEYS, &format!("{SERVICE}[services.shop.rollout]\n"), ""),
        (
            "`[services.NAME.scale]`",
            &scale::KEYS,
            &format!("{SERVICE}[services.shop.scale]\ninstances = '0..9'\n"),
            "",
        ),
        ("`metric` and `queue` of `scale`", &scale::METRIC_KEYS, "", ""),
        (
            "`up` and `down` of `scale`",
            &scale::SPEED_KEYS,
            &format!("{SERVICE}[services.shop.scale]\ninstances = '1..9'\n[services.shop.scale.up]\n"),
            "",
        ),
        ("`[tls]`", &tls::KEYS, "", ""),
        ("`[state]`", &state::KEYS, &format!("{SERVICE}[state]\n"), ""),
        ("`[limits]`", &limits::KEYS, &format!("{SERVICE}[limits]\n"), ""),
        ("`[interruption]`", &interruption::KEYS, &format!("{SERVICE}[interruption]\n"), ""),
    ] {
        let rows = rows(&page, heading);
        let documented: BTreeSet<&str> = rows.iter().map(|row| row[0].trim_end_matches('`')).collect();
        // Tables have sections of their own.
        let is_section = |key: &str| {
            keys == &file::KEYS[..] && ["tls", "limits", "interruption", "services", "routes"].contains(&key)
        };
        let known = keys.iter().copied().filter(|key| !is_section(key));
        assert_eq!(documented, known.collect(), "{heading}");
        for row in rows {
            let key = row[0].trim_end_matches('`');
            let Some(value) = row[1].strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) else {
                continue;
            };
            let said = format!("{before}{key} = {value}\n{after}");
            assert_eq!(read(&said, folder), read(&format!("{before}{after}"), folder), "{said}");
        }
    }
}

#[test]
fn every_key_of_resources() {
    let page = page("docs/resources.md");
    let rows = rows(&page, "# What a worker may use");
    let documented: Vec<&str> = rows.iter().map(|row| row[0].trim_end_matches('`')).collect();
    assert_eq!(documented, resources::KEYS);
}

#[test]
fn every_example() {
    let folder = tempfile::tempdir().unwrap();
    for (file, label) in [("shop.pem", "CERTIFICATE"), ("shop.key", "PRIVATE KEY")] {
        fs::write(folder.path().join(file), format!("-----BEGIN {label}-----\n")).unwrap();
    }
    let mut examples = 0;
    for page in ["README.md", "docs/configuration.md", "docs/resources.md"].map(page) {
        for block in page.split("```toml\n").skip(1) {
            let toml = block.split("```").next().unwrap();
            // Where state is kept says nothing of services, and needs the environment of its example.
            if toml.contains("${") {
                continue;
            }
            let is_whole = toml.contains("command");
            read(
                &if is_whole { toml.to_owned() } else { toml.replace("[services.shop]\n", SERVICE) },
                folder.path(),
            );
            examples += 1;
        }
    }
    assert!(examples >= 2);
}

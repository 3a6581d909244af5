//! What is exported, held against golden files and against the tools that know the formats. `.ci/exports` installs those; a test
//! that lacks them fails. `LETHE_TEST_BLESS=1` writes the golden files anew.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use lethe_export::{Exported, aws, kubernetes};
use lethe_node::config::{self, Config, Overrides, Source};
use tempfile::TempDir;

/// A file with most of what can be said.
const FULL: &str = r#"
listen = 80
admin = "0.0.0.0:8081"
trusted-proxies = ["10.0.0.0/8"]
[state]
url = "redis://cache"
blobs = "s3://photos?region=eu-central-1"
[services.web]
command = ["sh", "-c", "exec ./web --name \"no\" '${x}'"]
ready = "/healthz"
drain = "1500ms"
slow-start = "5s"
rollout = { min-healthy = "80%", max-surge = "50%", warm-up = "20s", checkpoints = [10, 50], pause = "5m" }
resources = { requests = { cpu = "250m", memory = "128Mi" }, limits = { cpu = 1, memory = "256MiB" } }
[services.web.env]
MODE = "no"
RATIO = "1e3"
GREETING = "a: b # ${c} %{d}\n\"e\""
DB_PASSWORD = "hunter2"
[services.web.scale]
instances = "2..9"
cpu = "70%"
requests = "1000/s"
up = { window = "0s", percent = 100, every = "15s" }
down = { window = "5m", percent = 10, every = "60s" }
[services.feed]
command = "sh"
protocol = "h2c"
instances = 3
[[routes]]
host = "shop.example"
service = "web"
[[routes]]
host = "shop.example"
path = "/feed"
service = "feed"
[[routes]]
service = "web"
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn load(path: &Path) -> Config {
    config::load(Source::Path(path.into()), Overrides::default()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn full() -> Config {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lethe.toml"), FULL).unwrap();
    load(folder.path())
}

fn shop() -> Config {
    load(&root().join("examples/shop"))
}

fn options(with_lethe: bool) -> kubernetes::Options {
    kubernetes::Options { image: Some("registry.example/shop:1.4".into()), secrets: Vec::new(), with_lethe }
}

/// A file with one service that pods can run by `lethe up`.
fn with_lethe() -> Config {
    let folder = tempfile::tempdir().unwrap();
    let toml = FULL.split("[services.web.scale]").next().unwrap();
    let toml = toml.replace("url = \"redis://cache\"", "url = \"redis://:${CARGO_PKG_NAME}@cache\"");
    fs::write(folder.path().join("lethe.toml"), toml).unwrap();
    load(folder.path())
}

/// All that there is, by name.
fn all() -> Vec<(&'static str, Exported)> {
    vec![
        ("kubernetes-shop", kubernetes::export(&shop(), &options(false)).unwrap()),
        ("kubernetes-full", kubernetes::export(&full(), &options(false)).unwrap()),
        ("kubernetes-lethe", kubernetes::export(&with_lethe(), &options(true)).unwrap()),
        ("aws-shop", aws::export(&shop())),
        ("aws-full", aws::export(&full())),
    ]
}

/// The files of an export, in a folder.
fn written(exported: &Exported) -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = exported.files.iter().map(|file| {
        let path = folder.path().join(&file.name);
        fs::write(&path, &file.text).unwrap();
        path
    });
    let paths = paths.collect();
    (folder, paths)
}

fn tool(path: &str) -> PathBuf {
    let path = root().join(".ci/.exports").join(path);
    assert!(path.exists(), "{} is missing: run .ci/exports", path.display());
    path
}

fn succeeds(command: &mut Command, what: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}\n{out}\n{err}");
    out.into_owned()
}

#[test]
fn golden_files() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, exported) in all() {
        let mut files: Vec<(String, String)> =
            exported.files.iter().map(|file| (file.name.clone(), file.text.clone())).collect();
        files.push(("notices.txt".into(), exported.notices.join("\n") + "\n"));
        let folder = golden.join(name);
        if env::var_os("LETHE_TEST_BLESS").is_some() {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
        }
        for (file, text) in &files {
            let kept = fs::read_to_string(folder.join(file)).unwrap_or_default();
            assert!(kept == *text, "{name}/{file} is not as it was; now it is\n{text}");
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), files.len(), "{name}");
    }
}

#[test]
fn the_same_twice() {
    assert!(all() == all());
}

#[test]
fn kubernetes_schemas_know_all_of_it() {
    let python = tool("venv/bin/python3");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports/kubernetes.py");
    for (name, exported) in all().into_iter().filter(|(name, _)| name.starts_with("kubernetes")) {
        let (_folder, paths) = written(&exported);
        succeeds(Command::new(&python).arg(&script).args(&paths), name);
        // The check itself finds what is wrong.
        let text = fs::read_to_string(&paths[0]).unwrap();
        for (from, to) in [("maxSurge", "maxSurgery"), ("containerPort: 8080", "containerPort: \"no\"")] {
            fs::write(&paths[0], text.replace(from, to)).unwrap();
            let found = Command::new(&python).arg(&script).arg(&paths[0]).output().unwrap();
            assert!(!found.status.success(), "{name}: {to} was not found");
        }
    }
}

/// kubectl reads what was written by Kubernetes' own types, without a server, and finds all objects again.
#[test]
fn kubectl_reads_it() {
    let kubectl = tool("venv/bin/kubectl");
    for (name, exported) in all().into_iter().filter(|(name, _)| name.starts_with("kubernetes")) {
        let (folder, paths) = written(&exported);
        let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        let kustomization = format!("resources:\n- {}\n", names.join("\n- "));
        fs::write(folder.path().join("kustomization.yaml"), kustomization).unwrap();
        let built = succeeds(Command::new(&kubectl).arg("kustomize").arg(folder.path()), name);
        let kinds = |text: &str| text.lines().filter(|line| line.starts_with("kind: ")).count();
        let expected: usize = exported.files.iter().map(|file| kinds(&file.text)).sum();
        assert_eq!(kinds(&built), expected, "{name}\n{built}");
        for file in exported.files.iter().filter(|file| file.name != "ingress.yaml") {
            // Decoded to the types of client-go, changed, and written again.
            let deployment = file.text.split("---\n").find(|text| text.contains("kind: Deployment")).unwrap();
            let path = folder.path().join("deployment.yaml");
            fs::write(&path, deployment).unwrap();
            let set = ["set", "image", "--local", "-o", "yaml", "-f"];
            let text = succeeds(Command::new(&kubectl).args(set).arg(&path).arg("*=changed:1"), name);
            for kept in [
                "image: changed:1",
                "preStop:",
                "startupProbe:",
                "readinessProbe:",
                "runAsNonRoot: true",
                "maxSurge: ",
            ] {
                assert!(text.contains(kept), "{name}: {kept}\n{text}");
            }
        }
    }
}

#[test]
fn terraform_knows_all_of_it() {
    let (modules, declarations) = (tool("node_modules"), tool("package/lib"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports/terraform.cjs");
    let check = |paths: &[&PathBuf]| {
        Command::new("node").arg(&script).arg(&modules).arg(&declarations).args(paths).output().unwrap()
    };
    for (name, exported) in all().into_iter().filter(|(name, _)| name.starts_with("aws")) {
        let (_folder, paths) = written(&exported);
        let files: Vec<&PathBuf> = paths.iter().filter(|path| path.extension().unwrap() == "tf").collect();
        let found = check(&files);
        assert!(found.status.success(), "{name}\n{}", String::from_utf8_lossy(&found.stderr));
        // The check itself finds what is wrong.
        let main = paths.iter().find(|path| path.ends_with("main.tf")).unwrap();
        let text = fs::read_to_string(main).unwrap();
        for (from, to, what) in [
            ("deregistration_delay", "deregistration_dilly", "unknown deregistration_dilly"),
            ("  min_size", "  min_sise", "minSize is missing"),
            ("var.vpc_id", "var.vpc_idd", "there is no var.vpc_idd"),
            ("min_size                  = var", "min_size = var", "terraform fmt would change it"),
            ("skip_matching", "skip_machting", "preferences: unknown skip_machting"),
        ] {
            assert!(text.contains(from), "{from}\n{text}");
            fs::write(main, text.replace(from, to)).unwrap();
            let found = check(&files);
            let said = String::from_utf8_lossy(&found.stderr);
            assert!(!found.status.success() && said.contains(what), "{name}: {what}\n{said}");
        }
        fs::write(main, text).unwrap();
        let shell = paths.iter().find(|path| path.ends_with("user-data.sh")).unwrap();
        succeeds(Command::new("sh").arg("-n").arg(shell), name);
    }
}

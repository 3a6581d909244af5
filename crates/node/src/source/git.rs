//! Fetches one commit of a git repository, without its history. The repository's own files (`.git`) never lie in what is
//! fetched: a service needs none of them, and they would name the URL.

use std::{env, fs, path::Path};

use tokio::process::Command;

use super::{
    tool::{self, FETCH_TIME_MAX, Failure, LOOK_TIME_MAX},
    url::Url,
};

/// What git takes from the environment that is not meant for a fetch, as when `lethe` runs within a hook.
const OF_OTHERS: [&str; 6] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
];

/// What git is told beside what the user's configuration says: nothing of the repository's is run, and no process is left
/// behind. Told by the environment, as everything that is secret.
const SETTINGS: [(&str, &str); 7] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("init.templateDir", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
];

/// Prints the login to git alone, which asks it through a shell. The login itself is in its environment.
const HELPER: &str = r#"!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$LETHE_GIT_USER" "$LETHE_GIT_PASSWORD"; }; f"#;

/// What a branch, a tag or nothing stands for now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The commit, as a hash.
    pub(super) commit: String,
    /// What to ask for; the commit itself, when that was named.
    pub(super) name: String,
}

/// Whether a reference is a whole hash, which never moves.
pub(super) fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Asks what the reference stands for. `None` if there is no such branch or tag.
pub(super) async fn resolve(url: &Url, reference: Option<&str>) -> Result<Option<Resolved>, Failure> {
    if let Some(commit) = reference.filter(|reference| is_commit(reference)) {
        return Ok(Some(Resolved { commit: commit.to_ascii_lowercase(), name: commit.to_ascii_lowercase() }));
    }
    // The order in which git itself looks (gitrevisions(7)).
    let names = match reference {
        None => vec!["HEAD".to_owned()],
        Some(full) if full.starts_with("refs/") => vec![full.to_owned()],
        Some(short) => vec![format!("refs/tags/{short}"), format!("refs/heads/{short}")],
    };
    let mut git = git(url);
    git.args(["ls-remote", "--quiet", "--", url.bare()]).args(&names);
    // What an annotated tag leads to.
    git.args(names.iter().filter(|name| name.starts_with("refs/tags/")).map(|name| format!("{name}^{{}}")));
    let printed = tool::run(git, LOOK_TIME_MAX).await?;
    let printed = String::from_utf8_lossy(&printed);
    let of = |wanted: &str| {
        let mut lines = printed.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(_, name)| *name == wanted).map(|(commit, _)| commit.to_owned())
    };
    Ok(names.into_iter().find_map(|name| {
        let commit = of(&format!("{name}^{{}}")).or_else(|| of(&name))?;
        Some(Resolved { commit, name })
    }))
}

/// Fetches what `wanted` is into `tree`, with `scratch` for its own use. Gives the commit that was fetched, which is a
/// newer one if the reference has moved meanwhile.
pub(super) async fn fetch(
    url: &Url,
    wanted: &Resolved,
    scratch: &Path,
    tree: &Path,
) -> Result<String, Failure> {
    let repository = scratch.join("git");
    let in_repository = || {
        let mut git = git(url);
        git.arg("--git-dir").arg(repository.join(".git")).arg("--work-tree").arg(tree);
        git
    };
    let mut init = git(url);
    init.args(["init", "--quiet"]).arg(&repository);
    tool::run(init, FETCH_TIME_MAX).await?;
    let common = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
    let mut one = in_repository();
    one.args(common).args(["--depth", "1", "--", url.bare(), &wanted.name]);
    let mut name = "FETCH_HEAD".to_owned();
    match tool::run(one, FETCH_TIME_MAX).await {
        // Not every server gives a commit that no branch or tag is at. Then it is among all that they lead to.
        Err(Failure::Ended(..)) if is_commit(&wanted.name) => {
            let mut all = in_repository();
            all.args(common).args([
                "--",
                url.bare(),
                "+refs/heads/*:refs/all/*",
                "+refs/tags/*:refs/alltags/*",
            ]);
            tool::run(all, FETCH_TIME_MAX).await?;
            name.clone_from(&wanted.name);
        }
        fetched => drop(fetched?),
    }
    let mut parse = in_repository();
    parse.args(["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{name}^{{commit}}")]);
    let commit = String::from_utf8_lossy(&tool::run(parse, LOOK_TIME_MAX).await?).trim().to_owned();
    let mut checkout = in_repository();
    checkout.args(["checkout", "--quiet", "--force", "--detach", &commit]);
    tool::run(checkout, FETCH_TIME_MAX).await?;
    // Large, and of no use from here on; what is not removed now is with the scratch.
    let _ = fs::remove_dir_all(&repository);
    Ok(commit)
}

fn git(url: &Url) -> Command {
    let mut git = Command::new("git");
    for name in OF_OTHERS {
        git.env_remove(name);
    }
    // A question would wait for ever: nobody is there to answer.
    git.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "true").env("SSH_ASKPASS_REQUIRE", "never");
    // What a server redirects to, or a repository names, is no way to other files and programs of this machine.
    git.env("GIT_ALLOW_PROTOCOL", if url.is_local() { "file" } else { "https:http:ssh:git" });
    let mut settings: Vec<(String, &str)> =
        SETTINGS.iter().map(|(key, value)| ((*key).into(), *value)).collect();
    if let Some(login) = url.login() {
        git.env("LETHE_GIT_USER", &login.user).env("LETHE_GIT_PASSWORD", &login.password);
        // For this host alone, and no other helper is asked or told of it.
        settings.push(("credential.helper".into(), ""));
        settings.push((format!("credential.{}.helper", url.origin()), HELPER));
    }
    // Settings that are there already stay.
    let before = env::var("GIT_CONFIG_COUNT").ok().and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
    for (index, (key, value)) in settings.iter().enumerate() {
        git.env(format!("GIT_CONFIG_KEY_{}", before + index), key);
        git.env(format!("GIT_CONFIG_VALUE_{}", before + index), value);
    }
    git.env("GIT_CONFIG_COUNT", (before + settings.len()).to_string());
    git
}

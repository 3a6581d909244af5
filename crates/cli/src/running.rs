//! Which running `lethe` a verb talks to.

use std::path::{Path, PathBuf};

use lethe_admin::{
    api::Node,
    client::Client,
    runtime::{self, Running},
};

use crate::arguments::Target;

/// Why it is not clear which `lethe` is meant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("no lethe is running; start one with `lethe up`")]
    None,
    /// Not the one that was asked for.
    #[error("no lethe is running with the state folder {}{}", .state_dir.display(), others(.running))]
    NotThatOne {
        /// What was asked for.
        state_dir: PathBuf,
        /// Those there are.
        running: Vec<Running>,
    },
    /// Several, and none is of this folder.
    #[error("several lethes are running; say which with --state-dir:{}", list(.0))]
    Several(Vec<Running>),
}

fn list(running: &[Running]) -> String {
    let line = |running: &Running| {
        let node = &running.node;
        let urls = node.urls().join(", ");
        format!("\n  --state-dir {}   (pid {}, {urls})", node.state_dir.display(), node.pid)
    };
    running.iter().map(line).collect()
}

fn others(running: &[Running]) -> String {
    if running.is_empty() {
        "; start one with `lethe up`".into()
    } else {
        format!("; there are:{}", list(running))
    }
}

/// Calls `ask` with a client of the `lethe` that `target` means, on a runtime of its own.
pub fn with<T>(target: &Target, ask: impl AsyncFnOnce(Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let chosen = chosen(target)?;
    block_on(ask(Client::new(chosen.control)))
}

/// Calls `ask` with what the `lethe` that `target` means says of itself, on a runtime of its own.
pub fn with_node<T>(target: &Target, ask: impl AsyncFnOnce(Node) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let chosen = chosen(target)?;
    block_on(ask(chosen.node))
}

/// What the `lethe` that `target` means says of itself.
pub fn node(target: &Target) -> anyhow::Result<Node> {
    Ok(chosen(target)?.node)
}

fn chosen(target: &Target) -> anyhow::Result<Running> {
    let here = std::env::current_dir()?;
    Ok(choose(runtime::running(), target.state_dir.as_deref(), &here)?)
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// The one with `state_dir`, else the one whose state folder is `.lethe` in `here` or in a folder above it, else the
/// only one. A `.lethe` in `here` itself that nobody uses stands for itself: `lethe down` in one project must not stop
/// another.
pub fn choose(mut running: Vec<Running>, state_dir: Option<&Path>, here: &Path) -> Result<Running, Error> {
    let own = here.join(lethe_node::config::STATE_DEFAULT);
    let near = here.ancestors().map(|folder| folder.join(lethe_node::config::STATE_DEFAULT));
    let found = match state_dir {
        Some(state_dir) => position(&running, state_dir),
        None => near.into_iter().find_map(|folder| position(&running, &folder)),
    };
    let wanted = state_dir.map(Path::to_owned).or_else(|| own.is_dir().then_some(own));
    match (found, wanted, running.len()) {
        (Some(found), ..) => Ok(running.swap_remove(found)),
        (None, None, 1) => Ok(running.swap_remove(0)),
        (None, None, 0) => Err(Error::None),
        (None, None, _) => Err(Error::Several(running)),
        (None, Some(state_dir), _) => Err(Error::NotThatOne { state_dir, running }),
    }
}

fn position(running: &[Running], state_dir: &Path) -> Option<usize> {
    let state_dir = state_dir.canonicalize().ok()?;
    running.iter().position(|one| one.node.state_dir == state_dir)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn running(state_dir: &Path) -> Running {
        let node = Node {
            pid: 7,
            version: "0.1.0".into(),
            listen: ([127, 0, 0, 1], 8080).into(),
            tls: None,
            admin: None,
            state_dir: state_dir.canonicalize().unwrap(),
            state: None,
            started_at: UNIX_EPOCH.into(),
        };
        Running { node, control: state_dir.join("control.sock") }
    }

    #[test]
    fn which_one_is_meant() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = place.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            folder
        };
        let (shop, blog, bare) = (folder("shop/.lethe"), folder("blog/.lethe"), folder("bare"));
        let inside = folder("shop/src/deep");
        let both = || vec![running(&shop), running(&blog)];
        let chosen = |running, state_dir: Option<&Path>, here: &Path| choose(running, state_dir, here);

        assert_eq!(chosen(both(), None, &inside).unwrap(), running(&shop));
        assert_eq!(chosen(both(), None, &place.path().join("blog")).unwrap(), running(&blog));
        assert_eq!(chosen(both(), Some(&blog), &inside).unwrap(), running(&blog));
        assert_eq!(chosen(vec![running(&blog)], None, &bare).unwrap(), running(&blog));
        assert!(matches!(chosen(vec![], None, &bare), Err(Error::None)));

        let several = chosen(both(), None, &bare).unwrap_err().to_string();
        assert!(several.contains("--state-dir"), "{several}");
        assert!(several.contains("blog/.lethe") && several.contains("shop/.lethe"), "{several}");
        let other = chosen(both(), Some(&bare), &inside).unwrap_err().to_string();
        assert!(other.contains("bare; there are:") && other.contains("blog/.lethe"), "{other}");
        assert!(chosen(vec![], Some(&place.path().join("missing")), &bare).is_err());
        // In the blog's folder, the shop is not meant.
        let idle = chosen(vec![running(&shop)], None, &place.path().join("blog")).unwrap_err();
        assert!(matches!(idle, Error::NotThatOne { .. }), "{idle}");
    }
}

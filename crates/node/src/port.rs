//! Who listens on a port: for the error that a new user meets first.

use std::{fs, net::SocketAddr, path::Path};

/// Says what to do when `address` cannot be listened on, naming the process that has it where that can be seen.
pub fn taken(address: SocketAddr, flag: &str) -> String {
    let port = address.port();
    match owner(port) {
        Some((pid, name)) => format!("port {port} is taken by pid {pid} ({name}); pass {flag} or stop it"),
        None => format!("port {port} is taken by another user's process; pass {flag} or stop it"),
    }
}

/// The process that listens on TCP port `port`, and its name. Other users' processes are seen by root only.
pub fn owner(port: u16) -> Option<(u32, String)> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let holds = |process: &Path| {
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
        descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
        })
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.map(|entry| entry.path()).find_map(|process| {
        let pid = process.file_name()?.to_str()?.parse().ok()?;
        holds(&process).then(|| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            (pid, name.trim().to_owned())
        })
    })
}

/// The inodes of sockets that listen on `port`, from a table as `proc_pid_net(5)` describes it.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let local = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns.len() > 9 && columns[1].ends_with(&local) && columns[3] == LISTEN)
        .filter_map(|columns| columns[9].parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(owner(address.port()).map(|(pid, _)| pid), Some(std::process::id()));
        let text = taken(address, "--listen");
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    }
}

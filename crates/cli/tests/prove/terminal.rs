//! What people see in a terminal, and services that ask for one.

use std::process::Command;

use crate::lab::{Lab, Proof, examples};

/// Gives a program a terminal of 60 columns and says all that it writes there; ends with its status.
const TERMINAL: &str = "\
import os, pty, sys
status = pty.spawn(['sh', '-c', 'stty cols 60; exec \"$@\"', 'sh', *sys.argv[1:]])
sys.exit(os.waitstatus_to_exitcode(status))";

/// The same in a terminal. Standard output and standard error are one there.
fn in_terminal(lab: &Lab, command: &Command) -> Proof {
    let mut python = Command::new("python3");
    python.args(["-c", TERMINAL]).arg(command.get_program()).args(command.get_args());
    python.current_dir(command.get_current_dir().unwrap());
    python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    lab.run(&mut python)
}

#[test]
fn a_bar_for_each_schedule() {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let name = "a journey whose name leaves little room in a terminal that has no more than sixty columns";
    let journey = lab.write(
        "long.toml",
        &format!(
            "name = \"{name}\"\n[[steps]]\npost = \"/sign-in\"\nform = {{ name = \"ada-{{{{identity}}}}\" }}\n\
             [[steps]]\nget = \"/me\"\n"
        ),
    );
    let proof = in_terminal(&lab, &lab.command(&folder, &journey, &["python3", "app.py"]));
    if !proof.has_worlds() {
        return;
    }
    let text = &proof.out;
    assert_eq!(proof.status.code(), Some(1), "{text:?}");
    // Each is written over by the next.
    let written: Vec<&str> = text.split("\r\x1b[K").flat_map(|part| part.split("\r\n")).collect();
    let bars: Vec<&&str> = written.iter().filter(|part| part.contains('[') && part.contains("###")).collect();
    for title in ["round robin", "cut after 1", "kill -9 after every step"] {
        assert!(bars.iter().any(|bar| bar.trim_start().starts_with(title)), "{title} in {bars:?}");
    }
    assert!(bars.iter().any(|bar| bar.contains("[##########----------] 1 of 2")), "{bars:?}");
    // One that came to the edge would go on in the next line, and stay.
    assert!(bars.iter().all(|bar| bar.chars().count() < 60), "{bars:?}");
    let report = text.rsplit("\x1b[K").next().unwrap();
    assert!(report.contains("1 violation") && report.contains("F1 proven"), "{text:?}");
}

/// It cannot have the terminal of whoever proves, and does not wait for it either.
#[test]
fn a_service_that_needs_a_terminal_is_told_of() {
    let (lab, folder) = (Lab::new(), examples().join("session-in-memory"));
    let script = "read -r answer < /dev/tty && exec python3 app.py; echo no terminal to ask at >&2; exit 9";
    let journey = folder.join("journey.toml");
    let proof = in_terminal(&lab, &lab.command(&folder, &journey, &["sh", "-c", script]));
    assert_eq!(proof.status.code(), Some(3), "{:?}", proof.out);
    assert!(proof.out.contains("status 9") && proof.out.contains("no terminal to ask at"), "{:?}", proof.out);
}

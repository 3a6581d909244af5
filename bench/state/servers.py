"""The peers' servers: each on this machine, with a folder that goes with it."""

import os
import pathlib
import pwd
import shutil
import subprocess
import urllib.parse

from measure import ROOT, connect_when_listening, end_with_parent, free_port, stop

OF_DEBIAN = pathlib.Path("/usr/lib/postgresql")
SCRIPT = ROOT / "crates" / "state" / "tests" / "postgres" / "server.sh"


def postgres_programs():
    """The folder of PostgreSQL's programs, the newest; None if there is none."""
    found = sorted(OF_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    path = str(found[-1]) if found else shutil.which("initdb")
    return pathlib.Path(path).parent if path else None


def install_postgres(install):
    return [] if postgres_programs() else install({"initdb": "postgresql"}) and ["postgresql"] * (not postgres_programs())


class Redis:
    """With nothing on disk, or with each write there before it is answered."""

    def __init__(self, folder, durable):
        folder.mkdir()
        port = free_port()
        manner = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", *manner],
            stdout=subprocess.DEVNULL, preexec_fn=end_with_parent)
        self.url = f"redis://127.0.0.1:{port}"
        connect_when_listening(port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)


class Postgres:
    """As it comes: a commit is on disk before it is answered. It refuses to be root's."""

    def __init__(self):
        script = SCRIPT.read_text()
        if "fsync = off\n" not in script:
            raise ValueError(f"{SCRIPT} does not say any more that nothing is to be on disk")
        script = script.replace("fsync = off\n", "fsync = on\n")
        command = ["bash", "-c", script, "server.sh", str(postgres_programs())]
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            command = ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups", *command]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        folder = self.process.stdout.readline().strip()
        self.say("start")
        self.url = f"postgres://lethe@{urllib.parse.quote(folder, safe='')}:5432/postgres"

    def say(self, word):
        print(word, file=self.process.stdin, flush=True)
        if self.process.stdout.readline() != "done\n":
            raise ValueError(f"PostgreSQL did not {word}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

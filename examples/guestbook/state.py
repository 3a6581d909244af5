"""The state API, from the standard library: HTTP over the unix socket that LETHE_STATE names.

Each thread keeps one connection. A call whose connection breaks is made again for a while, since the state tier may be
starting anew: so make only calls that may come twice, which all of the guestbook's are.
"""

import http.client
import json
import os
import socket
import threading
import time
from urllib.parse import quote, unquote, urlencode

TIMEOUT_S = 10
RETRY_S = 3
RETRY_PAUSE_S = 0.05


class StateError(Exception):
    """The state tier refused or cannot be reached."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status = status


class _Unix(http.client.HTTPConnection):
    """A connection to the socket `path`. What it calls its host is for the Host header alone."""

    def __init__(self, path):
        super().__init__("lethe", timeout=TIMEOUT_S)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class State:
    """What outlives a worker."""

    def __init__(self, url):
        if not url or not url.startswith("unix:///"):
            raise SystemExit(
                f"LETHE_STATE is {url!r}; it names the socket of the state API, as in unix:///path/state.sock. "
                "Start the guestbook with `lethe up examples/guestbook`."
            )
        self._path = unquote(url.removeprefix("unix://"))
        self._kept = threading.local()

    @classmethod
    def from_env(cls):
        return cls(os.environ.get("LETHE_STATE"))

    def open(self, method, path, body=None, headers=None):
        """Sends a request and returns its response, unread. A body of bytes is sent again when the connection breaks; one
        that is an iterator is read once, so then the error is raised."""
        again_until = time.monotonic() + RETRY_S
        while True:
            # A kept connection may have been closed at its other end: an upload, which cannot be sent twice, takes a new one.
            kept = None if _chunked(headers) else getattr(self._kept, "connection", None)
            connection = self._kept.connection = kept or _Unix(self._path)
            try:
                connection.request(method, path, body, headers or {}, encode_chunked=_chunked(headers))
                return connection.getresponse()
            except BaseException as error:
                # Whatever broke off, a half-sent request must not be followed by another one on its connection.
                connection.close()
                self._kept.connection = None
                if not isinstance(error, (OSError, http.client.HTTPException)):
                    raise
                if _chunked(headers) or time.monotonic() > again_until:
                    raise StateError(503, f"the state tier cannot be reached: {error}") from error
                if not kept:
                    time.sleep(RETRY_PAUSE_S)

    def call(self, method, path, body=None, headers=None, accept=()):
        """Sends a request and returns the status and body of its response. A status from 400 on is an error, unless it is
        among those to `accept`."""
        response = self.open(method, path, body, headers)
        try:
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._kept.connection = None
            raise StateError(503, f"the state tier broke off: {error}") from error
        if response.status >= 400 and response.status not in accept:
            raise StateError(response.status, text.decode("utf-8", "replace"))
        return response.status, text

    def healthy(self):
        self.call("GET", "/v1/health")

    def forget(self, response):
        """Gives up a response that was opened and not read."""
        response.close()
        self._kept.connection.close()
        self._kept.connection = None

    # Tables

    def get(self, table, key):
        """A row's value, or None."""
        status, text = self.call("GET", f"/v1/tables/{table}/{_segment(key)}", accept=(404,))
        return None if status == 404 else json.loads(text)

    def insert(self, table, key, value):
        """Writes a row unless it is there; returns whether it did."""
        path = f"/v1/tables/{table}/{_segment(key)}"
        status, _ = self.call("PUT", path, json.dumps(value).encode(), {"If-None-Match": "*"}, accept=(412,))
        return status != 412

    def scan(self, table, after, limit):
        """Rows in the order of their keys, as pairs, and whether there are more."""
        query = {"limit": limit} | ({"after": after} if after else {})
        page = json.loads(self.call("GET", f"/v1/tables/{table}?{urlencode(query)}")[1])
        return [(row["key"], json.loads(row["value"])) for row in page["rows"]], page["next"] is not None

    # Sessions

    def session_user(self, session):
        """Who is signed in, or None for a session that has ended or never was."""
        status, text = self.call("GET", f"/v1/sessions/{_segment(session)}", accept=(400, 404, 410))
        return json.loads(text)["user"] if status == 200 else None

    def sign_in(self, user):
        """A new session of this user: its id, which is a secret."""
        body = json.dumps({"user": user}).encode()
        return json.loads(self.call("POST", "/v1/sessions", body, {"Content-Type": "application/json"})[1])["id"]

    def sign_out(self, session):
        self.call("DELETE", f"/v1/sessions/{_segment(session)}", accept=(400, 404, 410))

    # Blobs

    def put_blob(self, bucket, key, pieces, content_type):
        """Streams pieces into a blob. If they end with an error, the blob stays as it was."""
        headers = {"Content-Type": content_type, "Transfer-Encoding": "chunked"}
        self.call("PUT", f"/v1/blobs/{bucket}/{_segment(key)}", pieces, headers)

    def open_blob(self, bucket, key, headers):
        """A response with a blob, unread; `headers` may ask for a range or name a known version."""
        return self.open("GET", f"/v1/blobs/{bucket}/{_segment(key)}", headers=headers)


def _segment(text):
    return quote(text, safe="")


def _chunked(headers):
    return bool(headers) and headers.get("Transfer-Encoding") == "chunked"

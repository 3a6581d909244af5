"""fake-gcs-server, and before it what it lacks of Google Cloud Storage as Google documents that: credentials, resumable uploads with
conditions, deletes and gets with conditions, pages of lists, and what refusals say. Says its port, and ends with its input.

Usage: front.py PROGRAM BUCKET EMAIL
"""

import base64, ctypes, http.client, json, os, re, signal, socket, subprocess, sys, threading, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

PROGRAM, BUCKET, EMAIL = sys.argv[1:]
UNIT = 256 << 10
# One write at a time: what is looked at is still so when it is written.
WRITES = threading.Lock()
UPLOADS = {}
ENTRY = re.compile(rb"<Contents>.*?</Contents>", re.S)


def start():
    """The server behind, on a free port. The kernel ends it with this process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    die = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    host = f"127.0.0.1:{port}"
    arguments = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port), "-public-host", host]
    behind = subprocess.Popen([PROGRAM, *arguments], preexec_fn=die, stderr=subprocess.PIPE)
    while b"server started" not in (line := behind.stderr.readline()):
        if not line:
            sys.exit("fake-gcs-server ended before it listened")
    threading.Thread(target=lambda: [None for _ in behind.stderr], daemon=True).start()
    return host


def name_of(entry):
    return re.search(rb"<Key>(.*?)</Key>", entry, re.S)[1]


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, headers=(), body=b""):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204 and not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message):
        """A refusal of the API that was asked."""
        if self.path.startswith("/upload/"):
            body = {"error": {"code": status, "message": message, "errors": [{"reason": code, "message": message}]}}
            return self.send(status, [("Content-Type", "application/json")], json.dumps(body).encode())
        body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return self.send(status, [("Content-Type", "application/xml")], body.encode())

    def behind(self, method, path, body=None, headers=None):
        """What the server behind answers."""
        connection = http.client.HTTPConnection(HOST)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer, answer.read()

    def forward(self, body, path=None):
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "authorization")}
        answer, told = self.behind(self.command, path or self.path, body, headers)
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in ("date", "connection", "transfer-encoding")]
        return answer.status, kept, told

    def is_known(self):
        """Whether a service account's own token is shown (https://google.aip.dev/auth/4111)."""
        try:
            kind, token = self.headers["Authorization"].split(" ")
            head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
            return kind == "Bearer" and json.loads(claims)["iss"] == EMAIL and len(signature) == 256
        except (AttributeError, KeyError, TypeError, ValueError):
            return False

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.is_known():
            return self.refuse(401, "AuthenticationRequired" if not self.path.startswith("/upload/") else "authError", "Who asks?")
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        if url.path.startswith("/upload/"):
            bucket = url.path.split("/")[5]
        else:
            bucket = url.path.split("/")[1]
        if bucket != BUCKET:
            return self.refuse(404, "notFound" if url.path.startswith("/upload/") else "NoSuchBucket", "The specified bucket does not exist.")
        if "upload_id" in query:
            return self.go_on(query["upload_id"], body)
        if query.get("uploadType") == "resumable":
            return self.begin(body, query.get("ifGenerationMatch"))
        if "list-type" in query:
            return self.list(url.path, query)
        if self.command in ("GET", "HEAD"):
            status, headers, told = self.forward(body)
            tag = dict(headers).get("Etag")
            if status == 404:
                return self.refuse(404, "NoSuchKey", "The specified key does not exist.")
            if status in (200, 206, 416) and self.headers.get("If-Match") not in (None, tag):
                return self.refuse(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
            return self.send(status, headers, told)
        with WRITES:
            must_be = self.headers.get("x-goog-if-generation-match")
            if must_be is not None:
                found, _ = self.behind("HEAD", self.path)
                if found.status == 200 and found.headers["X-Goog-Generation"] != must_be:
                    return self.refuse(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
            status, headers, told = self.forward(body)
        if status == 404:
            return self.refuse(404, "NoSuchKey", "The specified key does not exist.")
        return self.send(*((204, [], b"") if self.command == "DELETE" and status == 200 else (status, headers, told)))

    def list(self, path, query):
        """A page (XML API, "List Objects")."""
        _, _, told = self.forward(b"", f"{path}?list-type=2&prefix={quote(query.get('prefix', ''), safe='')}")
        after = max(query.get("start-after", ""), query.get("continuation-token", "")).encode()
        entries = [entry for entry in ENTRY.findall(told) if name_of(entry) > after]
        page = entries[: int(query.get("max-keys", 1000))]
        head, tail = ENTRY.sub(b"", told).rsplit(b"</ListBucketResult>", 1)
        if len(page) < len(entries):
            head += b"<IsTruncated>true</IsTruncated><NextContinuationToken>" + name_of(page[-1]) + b"</NextContinuationToken>"
        self.send(200, [("Content-Type", "application/xml")], head + b"".join(page) + b"</ListBucketResult>" + tail)

    def begin(self, body, must_be):
        """Another host is named than the one that was asked, as may be."""
        about = json.loads(body)
        found, _ = self.behind("HEAD", f"/{BUCKET}/{quote(about['name'], safe='')}")
        generation = found.headers["X-Goog-Generation"] if found.status == 200 else "0"
        if must_be not in (None, generation):
            return self.refuse(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
        name = uuid.uuid4().hex
        UPLOADS[name] = {"about": about, "must_be": must_be, "bytes": bytearray(), "answer": None, "chunks": 0}
        location = f"http://elsewhere.invalid/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&upload_id={name}"
        self.send(200, [("Location", location)])

    def go_on(self, name, body):
        """"Perform resumable uploads"; "Resumable uploads", under considerations."""
        upload = UPLOADS.get(name)
        if upload == "gone":
            return self.refuse(410, "gone", "The upload is over.")
        if upload is None:
            return self.refuse(404, "notFound", "There is no such upload.")
        if self.command == "DELETE":
            del UPLOADS[name]
            return self.send(499)
        if upload["answer"] is not None:
            return self.send(*upload["answer"])
        start, end, total = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(\*|\d+)", self.headers["Content-Range"]).groups()
        kept = upload["bytes"]
        if start is not None:
            if int(start) > len(kept) or int(end) + 1 - int(start) != len(body) or (total == "*" and len(body) % UNIT):
                return self.refuse(400, "invalid", f"Invalid request: {self.headers['Content-Range']}")
            new = body[len(kept) - int(start) :]
            upload["chunks"] += 1
            # Now and then not all of a chunk is kept.
            if upload["chunks"] % 3 == 2 and len(new) > UNIT:
                new = new[: len(new) // 2 // UNIT * UNIT]
            kept += new
        if total == "*" or len(kept) < int(total):
            # Some uploads are given up after their first bytes.
            match upload["about"]["name"].rpartition("/")[2]:
                case "missing":
                    del UPLOADS[name]
                case "gone":
                    UPLOADS[name] = "gone"
            return self.send(308, [("Range", f"bytes=0-{len(kept) - 1}")] if kept else [])
        condition = "" if upload["must_be"] is None else f"&ifGenerationMatch={upload['must_be']}"
        mark = name.encode()
        parts = [json.dumps(upload["about"]).encode(), bytes(kept)]
        types = ["application/json", upload["about"]["contentType"]]
        whole = b"".join(b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (mark, kind.encode(), part) for kind, part in zip(types, parts))
        with WRITES:
            answer, told = self.behind(
                "POST",
                f"/upload/storage/v1/b/{BUCKET}/o?uploadType=multipart{condition}",
                whole + b"--%s--\r\n" % mark,
                {"Content-Type": f"multipart/related; boundary={name}"},
            )
        upload["answer"] = (answer.status, [("Content-Type", "application/json")], told)
        upload["bytes"] = bytearray()
        self.send(*upload["answer"])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_):
        # Who asked has left.
        if not issubclass(sys.exc_info()[0], ConnectionError):
            super().handle_error(*_)


HOST = start()
connection = http.client.HTTPConnection(HOST)
connection.request("POST", "/storage/v1/b?project=shop", json.dumps({"name": BUCKET}), {"Content-Type": "application/json"})
assert connection.getresponse().status == 200
server = Server(("127.0.0.1", 0), Front)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(server.server_port, HOST.split(":")[1], flush=True)
server.serve_forever()

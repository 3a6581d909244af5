"""Tests of the guestbook: its parts alone, and the whole under `lethe up`, with workers killed.

    python3 -m unittest        (in this folder)

The second kind needs the `lethe` binary: built in this checkout's target folder, or named by LETHE_BIN.
"""

import http.client
import io
import os
import random
import re
import signal
import subprocess
import tempfile
import threading
import unittest
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from urllib.parse import quote, urlencode

import app
import guestbook
from multipart import BadForm, Multipart
from state import State

KILLS = 15
HERE = Path(__file__).parent
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


def lethe_binary():
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "../../target"))
    named = [Path(os.environ["LETHE_BIN"])] if "LETHE_BIN" in os.environ else []
    built = [target / profile / "lethe" for profile in ("release", "debug")]
    return next((path.resolve() for path in named + built if path.exists()), None)


def form_body(fields, photo=None):
    body = b""
    for name, value in fields.items():
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    if photo is not None:
        body += b'--edge\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
        body += photo + b"\r\n"
    return body + b"--edge--\r\n"


def headers(**fields):
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


class Dribble(io.BytesIO):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data, most):
        super().__init__(data)
        self.most = most

    def read1(self, count=-1):
        return super().read(min(count, self.most))


class Parts(unittest.TestCase):
    def test_a_form_reads_the_same_however_it_arrives(self):
        photo = b"\r\n--edg\r\n--edge" + PNG.replace(b"--edge", b"") + b"\r\n-"
        photo = photo.replace(b"\r\n--edge", b"\r\n--edgy")
        data = form_body({"entry": "e1", "text": "two\r\nlines"}, photo)
        for most in (1, 2, 3, 7, 64, 1 << 20):
            form = Multipart(guestbook.Body(Dribble(data, most), len(data)), 'multipart/form-data; boundary="edge"')
            parts = {name: b"".join(pieces) for name, pieces in form.parts()}
            self.assertEqual(parts, {"entry": b"e1", "text": b"two\r\nlines", "photo": photo}, most)

    def test_parts_that_nobody_reads_are_skipped(self):
        data = form_body({"other": "x" * 1000, "text": "here"})
        form = Multipart(guestbook.Body(io.BytesIO(data), len(data)), "multipart/form-data; boundary=edge")
        self.assertEqual([b"".join(pieces) for name, pieces in form.parts() if name == "text"], [b"here"])

    def test_a_form_that_is_cut_short_is_no_form(self):
        data = form_body({"text": "here"}, PNG)
        for end in range(0, len(data) - 4, 97):
            for promised in (end, len(data)):
                body = guestbook.Body(io.BytesIO(data[:end]), promised)
                with self.assertRaises(BadForm, msg=f"{end} of {promised}"):
                    for _, pieces in Multipart(body, "multipart/form-data; boundary=edge").parts():
                        b"".join(pieces)

    def test_only_this_sites_forms_count(self):
        for fields, allowed in [
            ({"Sec_Fetch_Site": "same-origin", "Host": "a"}, True),
            ({"Sec_Fetch_Site": "cross-site", "Host": "a"}, False),
            ({"Sec_Fetch_Site": "same-site", "Origin": "http://a", "Host": "a"}, False),
            ({"Origin": "http://a:8080", "Host": "a:8080"}, True),
            ({"Origin": "http://b", "Host": "a"}, False),
            ({"Origin": "null", "Host": "a"}, False),
            ({"Host": "a"}, True),
        ]:
            self.assertEqual(guestbook.same_origin(headers(**fields)), allowed, fields)

    def test_the_cookie_is_found_among_others(self):
        for cookie, session in [
            ("__Host-session=abc_-1", "abc_-1"),
            ('a={"x": 1}; __Host-session=abc', "abc"),
            ("x__Host-session=abc", None),
            ("__Host-session=", None),
            ("__Host-session=a/../b", None),
        ]:
            self.assertEqual(guestbook.session_id(headers(Cookie=cookie)), session, cookie)

    def test_entries_sort_newest_first_and_ids_cannot_be_made_up(self):
        entry = guestbook.draw_entry()
        self.assertTrue(guestbook.entry_is_fresh(entry))
        self.assertLessEqual(abs(guestbook.entry_time_ms(entry) - guestbook.now_ms()), 60_000)
        for made_up in ("0" * 32, "f" * 32, "x" * 32, entry + "0", "../" + entry[3:]):
            self.assertFalse(guestbook.entry_is_fresh(made_up), made_up)

    def test_pictures_are_known_by_their_first_bytes(self):
        for head, kind in [(PNG[:12], "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"RIFF0000WEBP", "image/webp"), (b"<svg", None), (b"RIFF0000WAVE", None)]:
            self.assertEqual(guestbook.sniff(head), kind)


class BrokenState(BaseHTTPRequestHandler):
    """A state tier that breaks off within every photo."""

    def do_GET(self):
        self.send_response(200)
        if self.path.startswith("/v1/blobs/"):
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(PNG) + 1))
            body = PNG
        else:
            body = b'{"user": "ada", "text": "here", "photo": "image/png"}'
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Breaking(unittest.TestCase):
    def test_a_photo_that_breaks_off_is_cut_off_at_once(self):
        with tempfile.TemporaryDirectory() as folder:
            # A folder may have any name.
            path = f"{folder}/caf\u00e9: 100%"
            with ThreadingUnixStreamServer(path, BrokenState) as tier:
                threading.Thread(target=tier.serve_forever).start()
                book = guestbook.Guestbook(State(f"unix://{quote(path)}"), "alone")
                with app.Server(("127.0.0.1", 0), book) as server:
                    threading.Thread(target=server.serve_forever).start()
                    try:
                        with self.assertRaises(http.client.IncompleteRead):
                            Visitor(server.server_port).get(f"/photos/{guestbook.draw_entry()}")
                    finally:
                        server.drain()
                        tier.shutdown()


class Visitor:
    """A browser with a cookie."""

    def __init__(self, port):
        self.port, self.cookie = port, None

    def request(self, method, path, body=None, **extra):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = {"Sec-Fetch-Site": "same-origin"} | extra | ({"Cookie": self.cookie} if self.cookie else {})
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            response.data = response.read()
            cookie = response.headers.get("Set-Cookie")
            if cookie:
                self.cookie = cookie.split(";")[0] if "Max-Age=0" not in cookie else None
            return response
        finally:
            connection.close()

    def get(self, path, **extra):
        return self.request("GET", path, **extra)

    def post(self, path, fields, **extra):
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", path, urlencode(fields), **(kind | extra))

    def sign_in(self, name, password="correct horse"):
        return self.post("/sign-in", {"name": name, "password": password})

    def new_entry(self):
        return re.search(r'name="entry" value="([0-9a-f]{32})"', self.get("/").data.decode())[1]

    def write(self, entry, text, photo=None):
        kind = {"Content-Type": "multipart/form-data; boundary=edge"}
        return self.request("POST", "/entries", form_body({"entry": entry, "text": text}, photo), **kind)


@unittest.skipUnless(lethe_binary(), "build `lethe` first (cargo build --release), or name it in LETHE_BIN")
class Whole(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        command = [lethe_binary(), "up", HERE, "--listen", "127.0.0.1:0", "--state-dir", cls.folder.name]
        cls.lethe = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        cls.pids, cls.ready, cls.port, cls.lines = {}, set(), None, []
        cls.changed = threading.Condition()
        cls.reader = threading.Thread(target=cls.read_output)
        cls.reader.start()
        with cls.changed:
            all_ready = cls.changed.wait_for(lambda: cls.port and len(cls.ready) == 3, timeout=60)
        if not all_ready:
            cls.tearDownClass()
            raise AssertionError("not ready:\n" + "".join(cls.lines))

    @classmethod
    def read_output(cls):
        for line in cls.lethe.stdout:
            cls.lines.append(line)
            with cls.changed:
                if found := re.search(r"serving http://127\.0\.0\.1:(\d+)", line):
                    cls.port = int(found[1])
                if found := re.search(r"^(guestbook-\d+) .*started \(pid (\d+)", line):
                    cls.pids[found[1]] = int(found[2])
                if found := re.search(r"^(guestbook-\d+) .*ready after", line):
                    cls.ready.add(found[1])
                cls.changed.notify_all()

    @classmethod
    def tearDownClass(cls):
        cls.lethe.send_signal(signal.SIGTERM)
        cls.lethe.wait(30)
        cls.reader.join()
        cls.lethe.stdout.close()
        cls.folder.cleanup()

    def visitor(self, name=None):
        visitor = Visitor(self.port)
        if name:
            self.assertEqual(visitor.sign_in(name).status, 303)
        return visitor

    def test_an_entry_with_a_photo_is_written_once_however_often_it_is_sent(self):
        ada = self.visitor("ada")
        entry = ada.new_entry()
        for _ in range(3):
            self.assertEqual(ada.write(entry, "I was <b>here</b>\r\nand there", PNG).status, 303)
        book = self.visitor().get("/").data.decode()
        self.assertEqual(book.count(f'id="{entry}"'), 1)
        self.assertIn("I was &lt;b&gt;here&lt;/b&gt;\nand there", book)
        photo = self.visitor().get(f"/photos/{entry}")
        self.assertEqual((photo.status, photo.data, photo.headers["Content-Type"]), (200, PNG, "image/png"))
        part = self.visitor().get(f"/photos/{entry}", Range="bytes=1-3")
        self.assertEqual((part.status, part.data), (206, b"PNG"))
        self.assertEqual(self.visitor().get(f"/photos/{entry}", **{"If-None-Match": photo.headers["ETag"]}).status, 304)
        head = self.visitor().request("HEAD", f"/photos/{entry}")
        self.assertEqual((head.status, head.headers["Content-Length"]), (200, str(len(PNG))))

    def test_signing_in_and_out(self):
        eve = self.visitor("eve")
        self.assertIn("Signed in as <b>eve</b>", eve.get("/").data.decode())
        stranger = self.visitor()
        self.assertEqual(stranger.sign_in("eve", "wrong horse").status, 422)
        self.assertEqual(stranger.sign_in("e v", "correct horse").status, 422)
        self.assertIsNone(stranger.cookie)
        old = eve.cookie
        self.assertEqual(eve.sign_in("eve").status, 303)
        new, eve.cookie = eve.cookie, old
        self.assertNotIn("Signed in", eve.get("/").data.decode(), "signing in again ends the session before it")
        eve.cookie = old = new
        self.assertEqual(eve.post("/sign-out", {}).status, 303)
        eve.cookie = old
        self.assertNotIn("Signed in", eve.get("/").data.decode(), "a session that has ended does not come back")

    def test_what_is_refused_writes_nothing(self):
        bob = self.visitor("bob")
        entry = bob.new_entry()
        self.assertEqual(self.visitor().write(entry, "not signed in").status, 403)
        self.assertEqual(bob.write(entry, "not a picture", b"<svg/>" * 100).status, 415)
        self.assertEqual(bob.write(entry, "too large", PNG + bytes(guestbook.PHOTO_BYTES_MAX)).status, 413)
        self.assertEqual(bob.write(entry, "  ").status, 422)
        self.assertEqual(bob.write("0" * 32, "on top for ever").status, 409)
        self.assertEqual(bob.post("/entries", {"entry": entry, "text": "no file"}).status, 400)
        other = {"Content-Type": "multipart/form-data; boundary=edge", "Sec-Fetch-Site": "cross-site"}
        self.assertEqual(bob.request("POST", "/entries", form_body({"entry": entry, "text": "x"}), **other).status, 403)
        self.assertEqual(bob.get("/nowhere").status, 404)
        self.assertNotIn(entry, self.visitor().get("/").data.decode().replace(f'value="{entry}"', ""))
        self.assertEqual(bob.write(entry, "after all").status, 303)

    def test_nothing_is_lost_or_doubled_while_workers_are_killed(self):
        seed = int(os.environ.get("SEED", random.randrange(2**32)))
        print(f"SEED={seed}")
        chance, over, killed = random.Random(seed), threading.Event(), []

        def kill():
            while not over.is_set() and len(killed) < KILLS:
                with self.changed:
                    # The others must carry on, so the next one dies when the last one has been replaced.
                    if not self.changed.wait_for(lambda: len(self.ready) == 3, timeout=60):
                        return
                    name = chance.choice(sorted(self.ready))
                    self.ready.discard(name)
                os.kill(self.pids[name], signal.SIGKILL)
                killed.append(name)

        killer = threading.Thread(target=kill)
        cleo = self.visitor("cleo")
        killer.start()
        try:
            written = []
            while killer.is_alive():
                number = len(written)
                entry = cleo.new_entry()
                photo = PNG if number % 5 == 0 else None
                answer = cleo.write(entry, f"line {number}", photo)
                if answer.headers["Lethe-Outcome"] == "unknown":
                    # It was inside two workers when they died, so it might be the cause, and is not tried a third time.
                    # People would send it again, and may.
                    answer = cleo.write(entry, f"line {number}", photo)
                self.assertEqual(answer.status, 303, answer.data)
                written.append(entry)
        finally:
            over.set()
            killer.join()
        self.assertEqual(len(killed), KILLS)
        found, after = [], ""
        while True:
            page = self.visitor().get(f"/?after={after}").data.decode()
            found += re.findall(r'<article class="card" id="([0-9a-f]{32})"', page)
            more = re.search(r'href="/\?after=([0-9a-f]{32})"', page)
            if not more:
                break
            after = more[1]
        self.assertEqual(sorted(found), sorted(set(found)))
        self.assertEqual([entry for entry in found if entry in set(written)], written[::-1])
        for entry in written[::5]:
            self.assertEqual(self.visitor().get(f"/photos/{entry}").data, PNG)


if __name__ == "__main__":
    unittest.main()

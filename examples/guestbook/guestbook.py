"""The guestbook: what each address answers. It keeps nothing in this process but handles."""

import hashlib
import hmac
import re
import secrets
import shutil
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, quote, urlsplit

import pages
from multipart import BadForm, Multipart
from state import StateError

ENTRIES_PAGE = 10
TEXT_CHARS_MAX = 1000
PHOTO_BYTES_MAX = 5 * 1024 * 1024
FORM_BYTES_MAX = 16 * 1024
PASSWORD_CHARS_MIN = 8
PASSWORD_BYTES_MAX = 256
ENTRY_AGE_MAX_MS = 24 * 3600 * 1000
CONNECTION_TIMEOUT_S = 75
DISCARD_BYTES_MAX = 2 * PHOTO_BYTES_MAX

# scrypt as OWASP's Password Storage Cheat Sheet has it: 32 MiB and three times over.
SCRYPT = {"n": 2**15, "r": 8, "p": 3, "maxmem": 64 * 1024 * 1024, "dklen": 32}
HASHES_MAX = 2
HASH_WAIT_S = 5

COOKIE = "__Host-session"
COOKIE_RULES = "Path=/; Secure; HttpOnly; SameSite=Lax"
NAME = re.compile(r"[a-z][a-z0-9_-]{2,31}", re.ASCII)
ENTRY = re.compile(r"[0-9a-f]{32}", re.ASCII)
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
TIME_MAX = 2**48 - 1

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refusal(Exception):
    """A request that is answered with an error page."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status, self.text = status, text


class Guestbook:
    """The domain: accounts and entries in the state tier."""

    def __init__(self, state, instance):
        self.state, self.instance = state, instance
        self._hashes = threading.BoundedSemaphore(HASHES_MAX)

    def enter(self, name, password):
        """Signs in, with a new account if the name is new. Returns a session id, or None for a wrong password. Safe to
        repeat: the account of the first try has the same password."""
        account = self.state.get("accounts", name)
        if account is None:
            salt = secrets.token_bytes(16)
            made = {"salt": salt.hex(), "hash": self._hash(password, salt), "joined_at": now_ms()}
            if self.state.insert("accounts", name, made):
                return self.state.sign_in(name)
            account = self.state.get("accounts", name)
        right = hmac.compare_digest(self._hash(password, bytes.fromhex(account["salt"])), account["hash"])
        return self.state.sign_in(name) if right else None

    def _hash(self, password, salt):
        if not self._hashes.acquire(timeout=HASH_WAIT_S):
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Many people are signing in just now. Try again in a moment.")
        try:
            return hashlib.scrypt(password.encode(), salt=salt, **SCRYPT).hex()
        finally:
            self._hashes.release()


def now_ms():
    return time.time_ns() // 1_000_000


def draw_entry():
    """The id of an entry to be written. Its first digits count time down, so that newer entries sort first; it is drawn
    when the form is shown, so that a form that is sent twice makes one entry."""
    return f"{TIME_MAX - now_ms():012x}{secrets.token_hex(10)}"


def entry_time_ms(entry):
    return TIME_MAX - int(entry[:12], 16)


def entry_is_fresh(entry):
    """Whether an id was drawn lately, and not made up to stay on top for ever."""
    return bool(ENTRY.fullmatch(entry)) and -ENTRY_AGE_MAX_MS < entry_time_ms(entry) - now_ms() <= 60_000


def sniff(head):
    """The media type of a picture, from its first bytes, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def same_origin(headers):
    """Whether a form was sent by a page of this site: Sec-Fetch-Site says so in every current browser, Origin in older
    ones; what sends neither is no browser, and has no cookie to be abused."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == headers.get("Host")


def session_id(headers):
    """The session that the request's cookie names, or None."""
    for header in headers.get_all("Cookie", []):
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == COOKIE and SESSION.fullmatch(value):
                return value
    return None


class Body:
    """The body of a request: as many bytes of the connection as its head has promised."""

    def __init__(self, stream, length):
        self._stream, self.left = stream, length

    def read1(self, count):
        """Some bytes, at most `count`; none at the end."""
        piece = self._stream.read1(min(count, self.left)) if self.left else b""
        if self.left and not piece:
            raise BadForm("it was cut short")
        self.left -= len(piece)
        return piece

    def read(self):
        """All that is left."""
        whole = b""
        while self.left:
            whole += self.read1(self.left)
        return whole


class Handler(BaseHTTPRequestHandler):
    """A connection. One request after the other."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "guestbook", ""
    timeout = CONNECTION_TIMEOUT_S
    disable_nagle_algorithm = True
    wbufsize = -1  # Buffered: a head and its body leave in one packet.

    # The life of a connection

    def handle_one_request(self):
        self.server.idle(self.connection, True)
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True
        finally:
            self.server.idle(self.connection, False)
        self.close_connection = self.close_connection or self.server.draining

    def parse_request(self):
        self.server.idle(self.connection, False)
        self._answered, self._body = False, Body(self.rfile, 0)
        if not super().parse_request():
            return False
        length = self.headers.get("Content-Length", "0")
        if length.isascii() and length.isdigit() and "Transfer-Encoding" not in self.headers:
            self._body.left = int(length)
        else:
            self.close_connection = True
            self.send_error(HTTPStatus.LENGTH_REQUIRED, explain="Send the body with a Content-Length.")
            return False
        return True

    def do_GET(self):
        self._answer(self._get)

    def do_HEAD(self):
        self._answer(self._get)

    def do_POST(self):
        self._answer(self._post)

    def _answer(self, handler):
        try:
            handler(urlsplit(self.path))
        except Refusal as refusal:
            self._fail(refusal.status, refusal.text)
        except BadForm as error:
            self._fail(HTTPStatus.BAD_REQUEST, f"The form did not arrive well: {error}. Go back and send it again.")
        except StateError as error:
            print(f"state: {error}", file=sys.stderr, flush=True)
            self._fail(HTTPStatus.SERVICE_UNAVAILABLE, "The book cannot be reached just now. Try again: nothing is written twice.")
        if self._body.left:
            self._discard()

    def _discard(self):
        """Takes what is left of a body that was refused. Closing at once would cut off the answer too: the system resets
        a connection that is closed with bytes unread."""
        self.close_connection = True
        self.wfile.flush()
        budget = DISCARD_BYTES_MAX
        try:
            while self._body.left and budget > 0:
                budget -= len(self._body.read1(64 * 1024))
        except (OSError, BadForm):
            pass  # The other end has given up.

    def _fail(self, status, text):
        if self._answered:
            self.close_connection = True  # Half an answer is out: all that is left is to cut it off.
            return
        self._page(pages.failure(self._frame(None), status, text), status)

    def send_error(self, code, message=None, explain=None):
        """What the base class says of malformed requests, in the look of the guestbook."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._page(pages.failure(self._frame(None), status, explain or status.description + "."), status)

    def log_message(self, *_):
        """The gateway logs requests."""

    # Answers

    def _frame(self, user):
        return pages.Frame(self.server.guestbook.instance, user)

    def _page(self, text, status=HTTPStatus.OK, headers=None):
        base = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "private, no-cache", "Vary": "Cookie"}
        self._send(status, text.encode(), base | (headers or {}))

    def _send(self, status, body, headers):
        self._head(status, headers | {"Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status, headers):
        self._answered = True
        self.close_connection = self.close_connection or self.server.draining
        self.send_response(status)
        for name, value in (SECURITY_HEADERS | headers).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _redirect(self, location, cookie=None):
        headers = {"Location": location, "Cache-Control": "no-store"}
        self._send(HTTPStatus.SEE_OTHER, b"", headers | ({"Set-Cookie": cookie} if cookie else {}))

    # Pages

    def _user(self):
        session = session_id(self.headers)
        return self.server.guestbook.state.session_user(session) if session else None

    def _get(self, address):
        path, query = address.path, parse_qs(address.query)
        if path == "/":
            self._book(self._user(), query.get("after", [""])[0])
        elif path == "/sign-in":
            self._page(pages.sign_in(self._frame(self._user())))
        elif path == pages.STYLE_PATH:
            kept = {"Content-Type": "text/css; charset=utf-8", "Cache-Control": "public, max-age=31536000, immutable"}
            self._send(HTTPStatus.OK, pages.STYLE, kept)
        elif path.startswith("/style-"):
            # A page of another version, while one takes over from the other.
            self._send(HTTPStatus.OK, pages.STYLE, {"Content-Type": "text/css; charset=utf-8", "Cache-Control": "no-cache"})
        elif path.startswith("/photos/"):
            self._photo(path.removeprefix("/photos/"))
        elif path == "/healthz":
            self.server.guestbook.state.healthy()
            self._head(HTTPStatus.NO_CONTENT, {})
        else:
            raise Refusal(HTTPStatus.NOT_FOUND, "There is no such page in this book.")

    def _book(self, user, after, text="", why=None, status=HTTPStatus.OK):
        after = after if ENTRY.fullmatch(after) else ""
        rows, more = self.server.guestbook.state.scan("entries", after, ENTRIES_PAGE)
        entries = [pages.Entry(key, row["user"], row["text"], entry_time_ms(key), row["photo"]) for key, row in rows]
        page = pages.book(self._frame(user), entries, more, bool(after), draw_entry(), text, why)
        self._page(page, status)

    def _photo(self, entry):
        """Streams a photo. Ranges and unchanged copies are the state API's to answer."""
        state = self.server.guestbook.state
        row = state.get("entries", entry) if ENTRY.fullmatch(entry) else None
        if not row or not row["photo"]:
            raise Refusal(HTTPStatus.NOT_FOUND, "There is no such photo in this book.")
        asked = {name: self.headers[name] for name in ("Range", "If-Range", "If-None-Match") if name in self.headers}
        response = state.open_blob("guestbook", f"{row['user']}/{entry}", asked)
        if response.status not in (200, 206, 304, 416):
            response.read()
            raise StateError(response.status, "a photo that an entry has is not there")
        names = ("Content-Type", "Content-Length", "Content-Range", "ETag", "Last-Modified", "Accept-Ranges")
        headers = {name: response.headers[name] for name in names if name in response.headers}
        self._head(response.status, headers | {"Cache-Control": "no-cache"})
        if self.command == "HEAD":
            self.server.guestbook.state.forget(response)
        else:
            shutil.copyfileobj(response, self.wfile)
            if response.length:
                raise ConnectionError("the state tier broke off within a photo")  # Nothing else can say that it is not whole.

    # Forms

    def _post(self, address):
        if not same_origin(self.headers):
            raise Refusal(HTTPStatus.FORBIDDEN, "That form was sent by another site. Write from a page of this book.")
        forms = {"/sign-in": self._sign_in, "/sign-out": self._sign_out, "/entries": self._write}
        if address.path not in forms:
            raise Refusal(HTTPStatus.NOT_FOUND, "There is no such page in this book.")
        forms[address.path]()

    def _form(self):
        if self._body.left > FORM_BYTES_MAX:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "That form is too large.")
        try:
            fields = parse_qs(self._body.read().decode("utf-8", "replace"), max_num_fields=10)
        except ValueError as error:
            raise BadForm("it has too many fields") from error
        return lambda name: fields.get(name, [""])[0]

    def _sign_in(self):
        field = self._form()
        name, password = field("name").strip().lower(), field("password")
        fits = PASSWORD_CHARS_MIN <= len(password) and len(password.encode()) <= PASSWORD_BYTES_MAX
        session = None
        if NAME.fullmatch(name) and fits:
            session = self.server.guestbook.enter(name, password)
        if session is None:
            why = "The password is not the one of that name, or name or password break a rule below."
            self._page(pages.sign_in(self._frame(None), field("name"), why), HTTPStatus.UNPROCESSABLE_ENTITY)
        else:
            self._end_session()
            self._redirect("/", f"{COOKIE}={session}; {COOKIE_RULES}")

    def _sign_out(self):
        self._form()
        self._end_session()
        self._redirect("/", f"{COOKIE}=; {COOKIE_RULES}; Max-Age=0")

    def _end_session(self):
        """Ends the session that the request came with, so that its cookie opens nothing any more."""
        session = session_id(self.headers)
        if session:
            self.server.guestbook.state.sign_out(session)

    def _write(self):
        user = self._user()
        if user is None:
            raise Refusal(HTTPStatus.FORBIDDEN, "Sign in to write into the book.")
        if self._body.left > PHOTO_BYTES_MAX + FORM_BYTES_MAX:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "A photo may have up to 5 MiB.")
        form = Multipart(self._body, self.headers.get("Content-Type", ""))
        fields, photo = {"entry": "", "text": ""}, None
        for name, pieces in form.parts():
            if name in fields:
                fields[name] = read_text(pieces)
            elif name == "photo" and entry_is_fresh(fields["entry"]):
                photo = self._store_photo(f"{user}/{fields['entry']}", pieces)
        entry, text = fields["entry"], fields["text"].replace("\r\n", "\n").strip()
        if not text or len(text) > TEXT_CHARS_MAX:
            why = f"Write something, in up to {TEXT_CHARS_MAX} characters."
            self._book(user, "", text, why, HTTPStatus.UNPROCESSABLE_ENTITY)
        elif not entry_is_fresh(entry):
            self._book(user, "", text, "That page was very old. Send it once more.", HTTPStatus.CONFLICT)
        else:
            # Whether it is new or was there from an earlier try of the same form: it is there.
            self.server.guestbook.state.insert("entries", entry, {"user": user, "text": text, "photo": photo})
            self._redirect(f"/#{quote(entry)}")

    def _store_photo(self, key, pieces):
        """Streams a photo into a blob as it arrives; returns its media type, or None when no file was chosen."""
        head = b""
        for piece in pieces:
            head += piece
            if len(head) >= 12:
                break
        if not head:
            return None
        kind = sniff(head)
        if kind is None:
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Choose a JPEG, PNG or WebP file. Its content counts, not its name.")
        self.server.guestbook.state.put_blob("guestbook", key, bounded(head, pieces), kind)
        return kind


def bounded(head, pieces):
    """`head` and then `pieces`, as far as a photo may go."""
    total = len(head)
    yield head
    for piece in pieces:
        total += len(piece)
        if total > PHOTO_BYTES_MAX:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "A photo may have up to 5 MiB.")
        yield piece


def read_text(pieces):
    text = b""
    for piece in pieces:
        text += piece
        if len(text) > FORM_BYTES_MAX:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "That text is too long.")
    return text.decode("utf-8", "replace")

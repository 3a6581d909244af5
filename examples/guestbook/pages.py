"""The pages, and the stylesheet, whose address holds a hash of its content."""

import hashlib
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = (Path(__file__).parent / "style.css").read_bytes()
STYLE_PATH = f"/style-{hashlib.sha256(STYLE).hexdigest()[:16]}.css"


@dataclass
class Frame:
    """What is around the content of every page."""

    instance: str
    user: str | None


@dataclass
class Entry:
    """An entry of the book."""

    key: str
    user: str
    text: str
    time_ms: int
    photo: str | None


def page(frame, title, content):
    if frame.user:
        account = f"""<span class="soft">Signed in as <b>{escape(frame.user)}</b></span>
          <form method="post" action="/sign-out"><button class="link">Sign out</button></form>"""
    else:
        account = '<a href="/sign-in">Sign in</a>'
    return f"""<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>{escape(title)} · The guestbook</title>
    <link rel="stylesheet" href="{STYLE_PATH}">
  </head>
  <body>
    <header><div class="wrap"><a class="brand" href="/">The guestbook</a><nav aria-label="Account">{account}</nav></div></header>
    <main class="wrap">{content}</main>
    <footer><div class="wrap">Served by worker <code>{escape(frame.instance)}</code></div></footer>
  </body>
</html>
"""


def book(frame, entries, more, is_later_page, new_entry, text, why):
    """A page of entries, newest first, and on the first one the form for a new one."""
    content = "" if is_later_page else writing(frame, new_entry, text, why)
    content += "".join(entry(one) for one in entries)
    if not entries:
        content += '<p class="empty">Nobody has written anything here yet.</p>'
    if more and entries:
        content += f'<p><a class="button quiet" href="/?after={entries[-1].key}">Older entries</a></p>'
    if is_later_page:
        content += '<p><a href="/">Back to the newest</a></p>'
    return page(frame, "Welcome", content)


def writing(frame, new_entry, text, why):
    if not frame.user:
        return """<section class="hello"><h1>You were here.</h1>
        <p>Leave a line, or a photo, for those who come after you.</p><p><a class="button" href="/sign-in">Sign in to write</a></p></section>"""
    return f"""<h1>You were here.</h1>
    <form class="card" method="post" action="/entries" enctype="multipart/form-data">
      {alert(why)}
      <input type="hidden" name="entry" value="{new_entry}">
      <label for="text">Your line</label>
      <textarea id="text" name="text" rows="4" maxlength="1000" required>{escape(text)}</textarea>
      <label for="photo">A photo <span class="soft">(JPEG, PNG or WebP, up to 5 MiB; may be left out)</span></label>
      <input id="photo" name="photo" type="file" accept="image/jpeg,image/png,image/webp">
      <button class="button">Write it into the book</button>
    </form>"""


def entry(one):
    photo = f'<img src="/photos/{one.key}" alt="Photo by {escape(one.user)}" loading="lazy">' if one.photo else ""
    moment = time.gmtime(one.time_ms / 1000)
    shown = f"{moment.tm_mday} {time.strftime('%B %Y, %H:%M', moment)} UTC"
    return f"""<article class="card" id="{one.key}">{photo}<p class="text">{escape(one.text)}</p>
    <p class="by"><b>{escape(one.user)}</b> <time datetime="{time.strftime('%Y-%m-%dT%H:%M:%SZ', moment)}">{shown}</time></p></article>"""


def sign_in(frame, name="", why=None):
    content = f"""<div class="narrow"><h1>Sign in</h1>
    <form class="card" method="post" action="/sign-in">
      {alert(why)}
      <label for="name">Name</label>
      <input id="name" name="name" value="{escape(name)}" required maxlength="64" autocomplete="username" autocapitalize="none" spellcheck="false" aria-describedby="name-hint">
      <p class="hint" id="name-hint">3 to 32 letters a to z, digits, - or _. A new name makes a new account.</p>
      <label for="password">Password</label>
      <input id="password" name="password" type="password" required minlength="8" autocomplete="current-password" aria-describedby="password-hint">
      <p class="hint" id="password-hint">At least 8 characters.</p>
      <button class="button">Sign in</button>
    </form></div>"""
    return page(frame, "Sign in", content)


def failure(frame, status, text):
    content = f"""<div class="empty"><p class="code">{status.value}</p><h1>{escape(status.phrase)}</h1><p>{escape(text)}</p>
    <p><a class="button" href="/">Back to the book</a></p></div>"""
    return page(frame, status.phrase, content)


def alert(why):
    return f'<p class="notice" role="alert">{escape(why)}</p>' if why else ""

"""Flask signs its cookies; what with, is in the environment, or drawn at random when the worker starts."""

import os

from flask import Flask, redirect, request, session

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET") or os.urandom(32)


@app.get("/")
def welcome():
    return "welcome"


@app.post("/sign-in")
def sign_in():
    session["name"] = request.form["name"]
    return redirect("/me", 303)


@app.get("/me")
def me():
    return (f"hello {session['name']}", 200) if "name" in session else ("sign in first", 401)


app.run("127.0.0.1", int(os.environ["PORT"]))

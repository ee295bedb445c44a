"""Writes into /work what has to last, and says in /tmp/acknowledged what it was told to be on disk; what fails is said there, too.

Arguments: the number of the next file, the journal of SQLite (delete, wal), whether there is to be PostgreSQL (yes, no).
"""
import glob
import hashlib
import os
import sqlite3
import subprocess
import sys
import threading

log = os.open("/tmp/acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def say(*words):
    os.write(log, (" ".join(map(str, words)) + "\n").encode())


def files(number):
    os.makedirs("/work/files", exist_ok=True)
    directory = os.open("/work/files", os.O_RDONLY | os.O_DIRECTORY)
    while True:
        data = os.urandom(4096 * (number % 16) + number % 4096 + 1)
        with open("/work/files/new", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename("/work/files/new", f"/work/files/{number}")
        os.fsync(directory)
        say("file", number, hashlib.sha256(data).hexdigest())
        number += 1


def lite(journal):
    database = sqlite3.connect("/work/lite", isolation_level=None, timeout=600)
    assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert database.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
    # `full` does not sync the removal of a journal: the last row that was acknowledged would be taken back (sqlite.org/pragma.html).
    database.execute("pragma synchronous=extra")
    database.execute("create table if not exists t (n integer)")
    (number,) = database.execute("select count(*) from t").fetchone()
    say("has-lite", number)
    while True:
        database.execute("insert into t values (?)", (number,))
        say("lite", number)
        number += 1


def run(*argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{argv}: {done.stdout} {done.stderr}")
    return done.stdout.strip()


class Session:
    """One of psql, kept: a process for each row would be most of the work of an emulated processor."""

    def __init__(self):
        argv = ["psql", "-h", "/tmp", "-XqtA", "-v", "ON_ERROR_STOP=1", "postgres"]
        self.psql = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, text):
        """What it answers in one line, once it is committed."""
        self.psql.stdin.write(f"{text};\n")
        line = self.psql.stdout.readline()
        if line == "":
            raise RuntimeError(f"psql ended with {self.psql.wait()} after: {text}")
        return line.strip()


def start_postgres():
    """With nothing else at work: it is a lot for a guest whose processor is emulated."""
    (programs,) = glob.glob("/usr/lib/postgresql/*/bin")
    home = "/work/postgres"
    if not os.path.exists("/work/postgres-is-there"):
        run("rm", "-rf", home)
        run(f"{programs}/initdb", "-D", home, "-A", "trust")
        run("touch", "/work/postgres-is-there")
    # Of a machine that is no more.
    run("rm", "-f", f"{home}/postmaster.pid")
    # Its own children keep the output open: whoever waits for an end of that would wait for ever.
    # What an earlier one may have left unsynced is synced in one call, not in one for each of its thousand files.
    options = "-k /tmp -c listen_addresses= -c shared_buffers=16MB -c recovery_init_sync_method=syncfs"
    subprocess.run(
        [f"{programs}/pg_ctl", "-D", home, "-w", "-t", "900", "-l", "/tmp/postgres.log", "-o", options, "start"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def postgres():
    session = Session()
    session.ask("create table if not exists t (n integer); select 'made'")
    number = int(session.ask("select count(*) from t"))
    say("has-postgres", number)
    while True:
        assert session.ask(f"insert into t values ({number}) returning n") == str(number)
        say("postgres", number)
        number += 1


def guarded(work, *arguments):
    try:
        work(*arguments)
    except BaseException as error:
        say("failed", work.__name__, repr(error).replace("\n", " "))


first, journal, with_postgres = sys.argv[1:]
parts = [(files, int(first)), (lite, journal)]
if with_postgres == "yes":
    guarded(start_postgres)
    parts.append((postgres,))
for part in parts:
    threading.Thread(target=guarded, args=part).start()

"""What users of E2B's Python SDKs do, synchronous and asynchronous. Prints one line of JSON for each scenario.

Arguments: names of scenarios, of which only these are run; what an older version of the SDK does not have is told as absent.
With STACYVM_E2B=all the asynchronous clients do what the synchronous ones do, too, beside what is theirs alone.
"""
import asyncio
import inspect
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
import traceback

if "E2B_DOMAIN" in os.environ:
    # Names below it are this host's, as a name server would say.
    below = "." + os.environ["E2B_DOMAIN"].split(":")[0]
    resolve = socket.getaddrinfo

    def here(host, *rest, **more):
        name = host.decode() if isinstance(host, bytes) else str(host)
        return resolve("127.0.0.1" if name.endswith(below) else host, *rest, **more)

    socket.getaddrinfo = here

from e2b import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    Sandbox,
    SandboxQuery,
    SandboxState,
    TimeoutException,
)
from e2b_code_interpreter import AsyncSandbox as AsyncInterpreter
from e2b_code_interpreter import Sandbox as Interpreter


# One server serves several versions, each with its own template.
SITE = "py-site-%d" % os.getpid()


def tell(name, outcome, begun, why=None):
    line = json.dumps({"name": name, "outcome": outcome, "ms": round((time.monotonic() - begun) * 1000), "why": why})
    sys.stdout.write(line + "\n")  # in one piece: several tell at a time
    sys.stdout.flush()


def outcome_of(error):
    text = type(error).__name__ + ": " + str(error)
    if isinstance(error, Refused):
        return "501 by design", str(error)
    if isinstance(error, (ImportError, AttributeError)) or isinstance(error, TypeError) and "unexpected keyword" in text:
        return "absent", text
    return "failed", text


def wanted(name):
    return len(sys.argv) == 1 or name in sys.argv[1:]


def scenario(name, work, *args):
    if not wanted(name):
        return
    begun = time.monotonic()
    try:
        work(*args)
        tell(name, "passed", begun)
    except Exception as error:
        outcome, why = outcome_of(error)
        tell(name, outcome, begun, why)


async def ascenario(name, work, *args):
    if not wanted(name):
        return
    begun = time.monotonic()
    try:
        await work(*args)
        tell(name, "passed", begun)
    except Exception as error:
        outcome, why = outcome_of(error)
        tell(name, outcome, begun, why)


class Refused(Exception):
    """As it should be: 501, with the name of the feature."""


def refused(what, work):
    try:
        work()
    except (ImportError, AttributeError, TypeError):
        raise
    except Exception as error:
        text = str(error)
        assert ("501" in text or "this server does not have" in text) and what in text, text
        raise Refused(what)
    raise AssertionError("it was not refused")


def raises(kind, work):
    try:
        work()
    except kind as error:
        return error
    raise AssertionError("no " + kind.__name__)


def until(holds):
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


class Blocking:
    """Something of an asynchronous client, used like its synchronous sibling: each call waits for its end, in a loop of another thread."""

    def __init__(self, thing, loop):
        self._thing, self._loop = thing, loop

    def _whole(self, value):
        async def awaited():
            return await value

        async def collected():
            return [each async for each in value]

        if inspect.isawaitable(value):
            return self._whole(asyncio.run_coroutine_threadsafe(awaited(), self._loop).result())
        if hasattr(value, "__aiter__"):
            return asyncio.run_coroutine_threadsafe(collected(), self._loop).result()
        ours = type(value).__module__.startswith("e2b") and any(
            inspect.iscoroutinefunction(getattr(type(value), name, None)) for name in dir(type(value)) if not name.startswith("__")
        )
        return Blocking(value, self._loop) if ours else value

    def __getattr__(self, name):
        value = getattr(self._thing, name)
        if not callable(value):
            return self._whole(value)
        return lambda *given, **named: self._whole(value(*given, **named))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


# What the two kinds of clients have in different forms: the asynchronous ones have scenarios of their own for these.
OTHER_FORM = {
    "output in a loop", "a terminal", "a terminal's size", "a terminal is killed", "a watcher", "changes below a directory",
    "a template is built", "a template's step that fails", "tags of a template", "every route that the package knows",
    "volumes", "files of a volume outside of a sandbox", "volumes in a sandbox", "secrets",
}


def known_routes():
    """(method, path) of each call that the package's generated clients make: of the control plane and of volumes."""
    import e2b

    found = set()
    for folder, _, names in os.walk(os.path.dirname(e2b.__file__)):
        for name in names:
            if name.endswith(".py") and os.sep + "api" + os.sep in folder:
                with open(os.path.join(folder, name)) as file:
                    text = file.read()
                for method, path in re.findall(r'"method": "(\w+)",\s*"url": f?"([^"]+)"', text):
                    found.add((method.upper(), path))
    return sorted(found)


def ask(method, path):
    """As the caller with the key. Returns the status and the answer's text."""
    import urllib.error
    import urllib.request

    data = None if method == "GET" else b"{}"
    headers = {"x-api-key": os.environ["E2B_API_KEY"], "content-type": "application/json"}
    request = urllib.request.Request(os.environ["STACYVM_TEST_URL"] + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def sync_scenarios(box, Sandbox=Sandbox, way="sync: "):
    def info():
        found = box.get_info()
        assert found.sandbox_id == box.sandbox_id and found.state == SandboxState.RUNNING, found
        assert found.metadata == {"who": "python"}, found.metadata

    def listed():
        pages = Sandbox.list(query=SandboxQuery(metadata={"who": "python"}))
        assert [each.sandbox_id for each in pages.next_items()] == [box.sandbox_id]

    def timeout():
        box.set_timeout(400)
        assert (box.get_info().end_at.timestamp() - time.time()) > 390

    def command():
        done = box.commands.run("echo out; echo err >&2")
        assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 0), done

    def fails():
        error = raises(CommandExitException, lambda: box.commands.run("echo x; exit 3"))
        assert (error.exit_code, error.stdout) == (3, "x\n")

    def options():
        done = box.commands.run("echo $A; pwd; id -un", envs={"A": "b"}, cwd="/tmp", user="nobody")
        assert done.stdout == "b\n/tmp\nnobody\n", done.stdout

    def callbacks():
        lines = []
        box.commands.run("echo 1; echo 2 >&2", on_stdout=lines.append, on_stderr=lines.append)
        assert sorted("".join(lines).split()) == ["1", "2"], lines

    def background():
        started = box.commands.run("cat", background=True, stdin=True)
        assert any(each.pid == started.pid for each in box.commands.list())
        box.commands.send_stdin(started.pid, "fed ☺")
        box.commands.close_stdin(started.pid)
        assert started.wait().stdout == "fed ☺"

    def kill():
        started = box.commands.run("sleep 100", background=True)
        followed = box.commands.connect(started.pid)
        assert box.commands.kill(started.pid)
        raises(CommandExitException, followed.wait)
        assert not box.commands.kill(started.pid)

    def late():
        raises(TimeoutException, lambda: box.commands.run("sleep 60", timeout=1))

    def text():
        written = box.files.write("/tmp/py/ä.txt", "Hello ☺")
        assert written.path == "/tmp/py/ä.txt", written
        assert box.files.read("/tmp/py/ä.txt") == "Hello ☺"

    def data():
        content = bytes(range(256)) * 300
        box.files.write("/tmp/bytes", content)
        assert bytes(box.files.read("/tmp/bytes", format="bytes")) == content
        assert b"".join(box.files.read("/tmp/bytes", format="stream")) == content

    def several():
        box.files.write_files([{"path": "/tmp/w/a", "data": "1"}, {"path": "/tmp/w/b/c", "data": b"2"}])
        assert box.files.read("/tmp/w/b/c") == "2"

    def directories():
        assert box.files.make_dir("/tmp/d/e") and not box.files.make_dir("/tmp/d/e")
        assert [each.name for each in box.files.list("/tmp/d")] == ["e"]
        assert box.files.exists("/tmp/d/e") and not box.files.exists("/tmp/d/f")
        assert box.files.get_info("/tmp/d/e").type.value == "dir"

    def moved():
        box.files.write("/tmp/from", "x")
        assert box.files.rename("/tmp/from", "/tmp/to").path == "/tmp/to"
        box.files.remove("/tmp/to")
        raises(NotFoundException, lambda: box.files.read("/tmp/to"))
        raises(InvalidArgumentException, lambda: box.files.list("/etc/passwd"))

    def watcher():
        box.files.make_dir("/tmp/seen")
        handle = box.files.watch_dir("/tmp/seen")
        box.files.write("/tmp/seen/file", "x")
        names = []

        def more():
            names.extend(event.name for event in handle.get_new_events())
            return "file" in names

        until(more)
        handle.stop()
        # Older versions do not ask what it is that has changed.
        if "include_entry" in inspect.signature(box.files.watch_dir).parameters:
            handle = box.files.watch_dir("/tmp/seen", include_entry=True)
            box.files.write("/tmp/seen/file", "three")
            sizes = []
            until(lambda: sizes.extend(event.entry and event.entry.size for event in handle.get_new_events()) or 5 in sizes)
            handle.stop()

    def terminal():
        screen = []
        handle = box.pty.create(PtySize(rows=20, cols=90))
        box.pty.send_stdin(handle.pid, b"stty size; exit\n")
        for _, _, out in handle:
            if out:
                screen.append(out)
        assert b"20 90" in b"".join(screen), screen

    def metrics():
        assert box.get_metrics()[0].mem_total > 0

    def links():
        import urllib.request

        box.files.write("/tmp/linked", "by link")
        assert urllib.request.urlopen(box.download_url("/tmp/linked")).read() == b"by link"

    def many():
        assert len(box.commands.run("head -c 1000000 /dev/zero | tr '\\0' x").stdout) == 1_000_000

    def paused():
        assert box.pause()
        again = Sandbox.connect(box.sandbox_id, timeout=300)
        assert again.commands.run("cat /tmp/linked").stdout == "by link"

    def snapshot():
        saved = box.create_snapshot()
        copy = Sandbox.create(saved.snapshot_id, timeout=60)
        try:
            assert copy.files.read("/tmp/linked") == "by link"
        finally:
            copy.kill()
            assert Sandbox.delete_snapshot(saved.snapshot_id)

    def strangers():
        raises(AuthenticationException, lambda: Sandbox.create(api_key="e2b_" + "f" * 40))
        raises(NotFoundException, lambda: Sandbox.connect("sb-00000000"))

    def login():
        done = box.commands.run("shopt -q login_shell && echo login; echo $HOME $USER; pwd")
        assert done.stdout == "login\n/home/user user\n/home/user\n", done.stdout

    def root():
        assert box.commands.run("id -u", user="root").stdout == "0\n"
        assert box.commands.run("sudo id -u").stdout == "0\n"

    def unknown():
        assert raises(CommandExitException, lambda: box.commands.run("no-such-program")).exit_code == 127

    def no_user():
        raises(AuthenticationException, lambda: box.commands.run("true", user="nosuch"))

    def no_directory():
        raises(InvalidArgumentException, lambda: box.commands.run("true", cwd="/no/such"))

    def empty_input():
        assert box.commands.run("cat; echo end").stdout == "end\n"

    def unlimited():
        assert box.commands.run("sleep 0.1; echo done", timeout=0).stdout == "done\n"

    def by_handle():
        started = box.commands.run("sleep 100", background=True)
        assert started.kill()
        raises(CommandExitException, started.wait)

    def large_input():
        started = box.commands.run("wc -c", background=True, stdin=True)
        box.commands.send_stdin(started.pid, "x" * 500_000)
        box.commands.close_stdin(started.pid)
        assert started.wait().stdout.strip() == "500000"

    def quotes():
        value = "a 'b' \"c\" $d ä ☺\nline"
        assert box.commands.run('printf %s "$V"', envs={"V": value}).stdout == value

    def pieces():
        handle = box.commands.run("for i in 1 2 3; do echo $i; sleep 0.1; done", background=True)
        assert "".join(out or "" for out, _, _ in handle) == "1\n2\n3\n"

    def left_running():
        handle = box.commands.run("sleep 1; echo late > /tmp/late", background=True)
        handle.disconnect()
        box.commands.connect(handle.pid).wait()
        assert box.files.read("/tmp/late") == "late\n"

    def replaced():
        box.files.write("/tmp/replaced", "long long")
        box.files.write("/tmp/replaced", "short")
        assert box.files.read("/tmp/replaced") == "short"

    def megabytes():
        content = bytes(range(256)) * 8192
        box.files.write("/tmp/large", content)
        assert bytes(box.files.read("/tmp/large", format="bytes")) == content

    def owners():
        box.files.write("/tmp/owned/file", "x", user="nobody")
        found = box.files.get_info("/tmp/owned/file")
        assert (found.owner, found.permissions, found.size) == ("nobody", "-rw-r--r--", 1), found

    def directory_errors():
        raises(InvalidArgumentException, lambda: box.files.read("/tmp"))
        raises(InvalidArgumentException, lambda: box.files.write("/tmp", "x"))
        raises(NotFoundException, lambda: box.files.list("/tmp/none"))

    def deep():
        box.files.write("/tmp/tree/one/two/file", "x")
        assert [each.path for each in box.files.list("/tmp/tree", depth=3)] == ["/tmp/tree/one", "/tmp/tree/one/two", "/tmp/tree/one/two/file"]

    def names():
        for name in ["with space", "percent%20", "plus+&?#", "ünï☺", "-dash"]:
            box.files.write("/tmp/names/" + name, name)
            assert box.files.read("/tmp/names/" + name) == name

    def relative():
        assert box.files.write("relative", "x").path == "/home/user/relative"
        assert box.files.read("relative") == "x"

    def packed():
        box.files.write("/tmp/packed", "again " * 10_000, gzip=True)
        assert box.files.read("/tmp/packed", gzip=True) == "again " * 10_000

    def terminal_size():
        screen = []
        handle = box.pty.create(PtySize(rows=20, cols=90))
        box.pty.resize(handle.pid, PtySize(rows=30, cols=100))
        box.pty.send_stdin(handle.pid, b"stty size; exit\n")
        for _, _, out in handle:
            screen.append(out or b"")
        assert b"30 100" in b"".join(screen), screen

    def terminal_killed():
        handle = box.pty.create(PtySize(rows=20, cols=90))
        assert box.pty.kill(handle.pid)
        raises(CommandExitException, handle.wait)

    def upload():
        import urllib.request

        data = b'--b\r\nContent-Disposition: form-data; name="file"; filename="signed"\r\n\r\nby link\r\n--b--\r\n'
        request = urllib.request.Request(box.upload_url("/tmp/signed"), data=data, headers={"content-type": "multipart/form-data; boundary=b"})
        assert urllib.request.urlopen(request).status == 200
        assert box.files.read("/tmp/signed") == "by link"

    def recursive():
        box.files.make_dir("/tmp/rseen/below")
        handle = box.files.watch_dir("/tmp/rseen", recursive=True)
        box.files.write("/tmp/rseen/below/file", "x")
        names = []

        def more():
            names.extend(event.name for event in handle.get_new_events())
            return any(name.endswith("below/file") for name in names)

        until(more)
        handle.stop()

    def by_class():
        assert Sandbox.get_info(box.sandbox_id).sandbox_id == box.sandbox_id
        assert Sandbox.set_timeout(box.sandbox_id, 500) is None
        assert not Sandbox.kill("sb-00000000")

    def repository():
        box.git.init("/tmp/repository")
        box.git.configure_user("Somebody", "somebody@example.com", scope="local", path="/tmp/repository")
        box.files.write("/tmp/repository/file", "1")
        box.git.add("/tmp/repository")
        box.git.commit("/tmp/repository", "the first")
        assert box.git.status("/tmp/repository").is_clean

    for name, work in [
        ("a login shell of the user", login), ("root, by name and by sudo", root), ("a program that is not there", unknown),
        ("a user that is not there", no_user), ("a directory that is not there", no_directory), ("an empty input", empty_input),
        ("without a time limit", unlimited), ("killed by its handle", by_handle), ("much input", large_input),
        ("environment with quotes", quotes), ("output in a loop", pieces), ("left running by its client", left_running),
        ("a file replaced", replaced), ("megabytes", megabytes), ("owners of files", owners),
        ("errors about directories", directory_errors), ("a tree", deep), ("names of every kind", names), ("a relative path", relative),
        ("gzip both ways", packed), ("a terminal's size", terminal_size), ("a terminal is killed", terminal_killed),
        ("a signed link to write", upload), ("changes below a directory", recursive), ("by its id, without an object", by_class),
        ("a repository", repository),
        ("information", info), ("listed by metadata", listed), ("its time is set", timeout), ("a command", command),
        ("a command that fails", fails), ("environment, directory, user", options), ("output as it comes", callbacks),
        ("standard input", background), ("connect and kill", kill), ("a command that takes too long", late),
        ("text files", text), ("bytes and streams", data), ("several files", several), ("directories", directories),
        ("moved and removed", moved), ("a watcher", watcher), ("a terminal", terminal), ("metrics", metrics),
        ("a signed link", links), ("much output", many), ("paused and resumed", paused), ("a snapshot", snapshot),
        ("keys and ids that are not known", strangers),
    ]:
        if way == "sync: " or name not in OTHER_FORM:
            scenario(way + name, work)


def own_scenarios(Sandbox=Sandbox, way="sync: "):
    """Each with sandboxes of its own, or with none."""

    def closed():
        shut = Sandbox.create(timeout=60, allow_internet_access=False)
        try:
            assert shut.commands.run("curl -s -m 2 http://example.com || echo closed").stdout == "closed\n"
        finally:
            shut.kill()

    def given():
        other = Sandbox.create(timeout=60, envs={"GIVEN": "to all"})
        try:
            assert other.commands.run("echo $GIVEN").stdout == "to all\n"
            assert not other.files.exists("/tmp/replaced")
        finally:
            other.kill()
        raises(Exception, lambda: other.commands.run("true"))

    def with_block():
        with Sandbox.create(timeout=60) as other:
            assert other.is_running()
        assert not other.is_running()

    def killed():
        other = Sandbox.create(timeout=60)
        started = other.commands.run("sleep 60", background=True)
        other.kill()
        error = str(raises(Exception, started.wait))
        # Older clients pass on that the connection broke; they come through a proxy, which ends it in its own way.
        assert "E2B_DOMAIN" in os.environ or "killed or reached its end of life" in error, error

    def twice():
        one = Sandbox.create(timeout=60, idempotency_key="the-same-" + way[0])
        two = Sandbox.create(timeout=60, idempotency_key="the-same-" + way[0])
        assert one.sandbox_id == two.sandbox_id
        one.kill()

    def template():
        from e2b import Template, wait_for_url

        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "page.html"), "w") as file:
                file.write("served\n")
            logs = []
            made = (
                Template(file_context_path=folder).from_template("base").copy("page.html", "site/page.html")
                .run_cmd("echo made > made # %f" % time.time()).set_start_cmd("python3 -m http.server -d site 8000", wait_for_url("http://localhost:8000"))
            )
            Template.build(made, alias=SITE, cpu_count=1, memory_mb=256, on_build_logs=lambda entry: logs.append(entry.message))
            assert any("echo made" in line for line in logs), logs
            assert Template.alias_exists(SITE)
        with Sandbox.create(SITE, timeout=120) as site:
            assert site.commands.run("cat made; curl -s localhost:8000/page.html").stdout == "made\nserved\n"

    def poor_template():
        from e2b import BuildException, Template

        made = Template().from_template("base").run_cmd("echo before; no-such-program")
        error = raises(BuildException, lambda: Template.build(made, alias="py-poor", cpu_count=1, memory_mb=256))
        assert "no-such-program: command not found" in str(error), error

    def tags():
        from e2b import Template

        assert [each.tag for each in Template.get_tags(SITE)] == ["default"]
        assert Template.assign_tags(SITE, ["v1", "stable"]).tags == ["v1", "stable"]
        Template.remove_tags(SITE, ["v1"])
        assert sorted(each.tag for each in Template.get_tags(SITE)) == ["default", "stable"]

    def routes():
        found = known_routes()
        assert len(found) > 30, found
        wrong = []
        for method, path in found:
            status, text = ask(method, re.sub(r"\{\w+\}", "x", path))
            if status >= 300:
                told = json.loads(text)
                named = status != 404 or re.search(r"['\"]x['\"]", told["message"])
                if told.get("code") != status or not isinstance(told.get("message"), str) or not named or status >= 500 and status != 501:
                    wrong.append("%s %s: %d %s" % (method, path, status, text))
        assert not wrong, "\n".join(wrong)

    def volumes():
        from e2b import Volume

        made = Volume.create("py-files")
        assert made.name == "py-files" and made.token, made
        assert [each.name for each in Volume.list() if each.volume_id == made.volume_id] == ["py-files"]
        assert Volume.get_info(made.volume_id).token == made.token
        assert Volume.connect(made.volume_id).name == "py-files"
        raises(Exception, lambda: Volume.get_info("vol-00000000"))
        assert Volume.destroy(made.volume_id) and not Volume.destroy(made.volume_id)

    def volume_files():
        from e2b import Volume

        volume = Volume.create("py-looked-into")
        try:
            refused("files of a volume", lambda: volume.list("/"))
        finally:
            Volume.destroy(volume.volume_id)

    def mounted():
        from e2b import Volume

        volume = Volume.create("py-kept")
        # The first machine with a place for one starts its system.
        first = Sandbox.create(volume_mounts={"/mnt/kept": volume}, timeout=300, request_timeout=600)
        first.files.write("/mnt/kept/word", "outlives it")
        first.kill()
        second = Sandbox.create(volume_mounts={"/mnt/kept": "py-kept"}, timeout=300, request_timeout=600)
        assert second.files.read("/mnt/kept/word") == "outlives it"
        second.kill()
        assert Volume.destroy(volume.volume_id)

    def no_secrets():
        from e2b import Secret

        refused("secrets", lambda: Secret.create("s", "v"))

    def no_mcp():
        refused("MCP", lambda: Sandbox.create(mcp={"duckduckgo": {}}))

    def ranges():
        with Sandbox.create(network={"allow_out": ["192.0.2.0/24"], "deny_out": ["0.0.0.0/0"]}, timeout=60) as other:
            assert other.commands.run("echo here").stdout == "here\n"

    def auto_pause():
        own = Sandbox.create(timeout=60, lifecycle={"on_timeout": "pause"})
        own.files.write("/tmp/kept", "yes")
        own.set_timeout(0)
        until(lambda: Sandbox.get_info(own.sandbox_id).state == SandboxState.PAUSED)
        again = Sandbox.connect(own.sandbox_id, timeout=60)
        assert again.files.read("/tmp/kept") == "yes"
        again.kill()

    for name, work in [
        ("no network", closed), ("environment of all", given), ("a with block", with_block), ("a sandbox that is killed under a command", killed),
        ("asked for twice with one key", twice),
        ("a template is built", template), ("a template's step that fails", poor_template), ("volumes", volumes), ("secrets", no_secrets),
        ("files of a volume outside of a sandbox", volume_files), ("volumes in a sandbox", mounted),
        ("the MCP gateway", no_mcp), ("tags of a template", tags), ("every route that the package knows", routes),
        ("ranges of addresses", ranges), ("a pause at the end of its time", auto_pause),
    ]:
        if way == "sync: " or name not in OTHER_FORM:
            scenario(way + name, work)


async def async_scenarios(box):
    async def command():
        assert (await box.commands.run("echo async")).stdout == "async\n"

    async def at_once():
        done = await asyncio.gather(*(box.commands.run("echo %d" % i) for i in range(8)))
        assert [each.stdout.strip() for each in done] == [str(i) for i in range(8)]

    async def background():
        lines = []
        handle = await box.commands.run("echo a; sleep 0.2; echo b", background=True, on_stdout=lines.append)
        await handle.wait()
        assert "".join(lines) == "a\nb\n", lines

    async def files():
        await box.files.write("/tmp/async", b"\x00\xff")
        assert bytes(await box.files.read("/tmp/async", format="bytes")) == b"\x00\xff"
        assert [each.name for each in await box.files.list("/tmp") if each.name == "async"] == ["async"]

    async def watch():
        seen = []
        await box.files.make_dir("/tmp/aw")
        handle = await box.files.watch_dir("/tmp/aw", on_event=lambda event: seen.append(event.name))
        await box.files.write("/tmp/aw/one", "1")
        for _ in range(200):
            if "one" in seen:
                break
            await asyncio.sleep(0.05)
        assert "one" in seen, seen
        await handle.stop()

    async def terminal():
        screen = []
        handle = await box.pty.create(PtySize(rows=10, cols=70), on_data=screen.append)
        await box.pty.send_stdin(handle.pid, b"stty size; exit\n")
        await handle.wait()
        assert b"10 70" in b"".join(screen)

    async def info():
        assert (await box.get_info()).sandbox_id == box.sandbox_id
        assert await box.is_running()

    async def fails():
        try:
            await box.commands.run("echo x; exit 3")
        except CommandExitException as error:
            assert (error.exit_code, error.stdout) == (3, "x\n")
        else:
            raise AssertionError("it did not fail")

    async def options():
        done = await box.commands.run("echo $A; pwd; id -un", envs={"A": "b"}, cwd="/tmp", user="nobody")
        assert done.stdout == "b\n/tmp\nnobody\n", done.stdout

    async def inputs():
        started = await box.commands.run("cat", background=True, stdin=True)
        await box.commands.send_stdin(started.pid, "fed ☺")
        await box.commands.close_stdin(started.pid)
        assert (await started.wait()).stdout == "fed ☺"

    async def kill():
        started = await box.commands.run("sleep 100", background=True)
        followed = await box.commands.connect(started.pid)
        assert await box.commands.kill(started.pid)
        try:
            await followed.wait()
        except CommandExitException:
            return
        raise AssertionError("it was not killed")

    async def late():
        try:
            await box.commands.run("sleep 60", timeout=1)
        except TimeoutException:
            return
        raise AssertionError("it was not late")

    async def directories():
        assert await box.files.make_dir("/tmp/ad/e") and not await box.files.make_dir("/tmp/ad/e")
        assert await box.files.exists("/tmp/ad/e")
        moved = await box.files.rename("/tmp/ad/e", "/tmp/ad/f")
        assert moved.path == "/tmp/ad/f"
        await box.files.remove("/tmp/ad")
        assert not await box.files.exists("/tmp/ad")

    async def several():
        await box.files.write_files([{"path": "/tmp/a1", "data": "1"}, {"path": "/tmp/a2", "data": b"2"}])
        assert [await box.files.read("/tmp/a1"), await box.files.read("/tmp/a2")] == ["1", "2"]

    async def listed():
        pages = AsyncSandbox.list(query=SandboxQuery(metadata={"who": "python"}))
        assert box.sandbox_id in [each.sandbox_id for each in await pages.next_items()]

    async def metrics():
        assert (await box.get_metrics())[0].mem_total > 0

    async def own():
        async with await AsyncSandbox.create(timeout=60) as other:
            assert await other.is_running()
        assert not await other.is_running()

    for name, work in [("a command that fails", fails), ("environment, directory, user", options), ("standard input", inputs),
                       ("connect and kill", kill), ("a command that takes too long", late), ("directories", directories),
                       ("several files", several), ("listed by metadata", listed), ("metrics", metrics), ("a with block", own),
                       ("a command", command), ("eight at once", at_once), ("in the background", background),
                       ("files", files), ("changes in a directory", watch), ("a terminal", terminal), ("information", info)]:
        await ascenario("async: " + name, work)


def interpreter_scenarios(box, way="interpreter: "):
    def state():
        assert box.run_code("x = 20").error is None
        done = box.run_code("x += 1; x * 2")
        assert done.text == "42" and done.execution_count > 1, (done, done.execution_count)

    def output():
        seen = []
        done = box.run_code("import sys\nprint('a')\nprint('b', file=sys.stderr)\nimport os\nos.system('echo c')", on_stdout=lambda line: seen.append(line.line))
        assert "".join(done.logs.stdout) == "a\nc\n" and done.logs.stderr == ["b\n"], done.logs
        assert "".join(seen) == "a\nc\n"

    def error():
        done = box.run_code("def f():\n    return 1 / 0\nf()")
        assert (done.error.name, done.error.value) == ("ZeroDivisionError", "division by zero")
        assert "line 2, in f" in done.error.traceback, done.error.traceback

    def rich():
        done = box.run_code("class H:\n  def _repr_html_(self): return '<b>'\n  def _repr_markdown_(self): return '*b*'\ndisplay(H())\nH()")
        assert [(each.html, each.markdown, each.is_main_result) for each in done.results] == [("<b>", "*b*", False), ("<b>", "*b*", True)]

    def contexts():
        other = box.create_code_context(cwd="/tmp")
        assert box.run_code("import os; os.getcwd()", context=other).text == "/tmp"
        assert box.run_code("x", context=other).error.name == "NameError"
        assert other.id in [each.id for each in box.list_code_contexts()]
        box.run_code("y = 1", context=other)
        box.restart_code_context(other)
        assert box.run_code("y", context=other).error.name == "NameError"
        box.remove_code_context(other)
        assert other.id not in [each.id for each in box.list_code_contexts()]

    def refused():
        assert box.run_code("input()").error.name == "StdinNotImplementedError"

    def environment():
        assert box.run_code("import os; os.environ['E']", envs={"E": "v"}).text == "v"
        assert box.run_code("os.environ.get('E')").results == []

    def awaits():
        assert box.run_code("import asyncio\nawait asyncio.sleep(0.01)\n'done'").text == "done"

    def magic():
        assert "".join(box.run_code("!echo by the shell").logs.stdout) == "by the shell\n"

    def late():
        raises(TimeoutException, lambda: box.run_code("while True: pass", timeout=2))
        assert box.run_code("'again'").text == "again"

    def large():
        assert len(box.run_code("'x' * 2_000_000").text) == 2_000_000

    def pictures():
        assert box.run_code("class P:\n  def _repr_png_(self): return b'\\x89PNG'\nP()").results[0].png == "iVBORw=="

    def syntax():
        assert box.run_code("if True print(1)").error.name == "SyntaxError"
        assert box.run_code("1").text == "1"

    def callbacks():
        seen = []
        box.run_code("display(1)\nraise ValueError('x')", on_result=lambda each: seen.append(each.text), on_error=lambda each: seen.append(each.name))
        assert seen == ["1", "ValueError"], seen

    def bash():
        box.run_code("kept=yes", language="bash")
        assert box.run_code("echo $kept", language="bash").logs.stdout == ["yes\n"]

    def no_node():
        try:
            box.run_code("1", language="javascript")
        except AttributeError:
            raise  # this version has no such thing
        except Exception as error:
            assert "501" in str(error) or "does not have" in str(error), error
            raise Refused("javascript, which the image lacks")
        raise AssertionError("it was not refused")

    for name, work in [("pictures", pictures), ("a syntax error", syntax), ("callbacks", callbacks), ("bash", bash),
                       ("a language that the image lacks", no_node), ("state between pieces of code", state), ("output", output), ("an error with its lines", error),
                       ("rich results", rich), ("contexts", contexts), ("no standard input", refused),
                       ("environment of one call", environment), ("await", awaits), ("a shell line", magic),
                       ("code that takes too long", late), ("a large result", large)]:
        scenario(way + name, work)


async def interpreter_async(box):
    async def code():
        assert (await box.run_code("1 + 1")).text == "2"

    async def contexts():
        context = await box.create_code_context(cwd="/tmp")
        assert (await box.run_code("import os; os.getcwd()", context=context)).text == "/tmp"
        await box.remove_code_context(context)

    async def error():
        assert (await box.run_code("1 / 0")).error.name == "ZeroDivisionError"

    for name, work in [("a value", code), ("contexts", contexts), ("an error", error)]:
        await ascenario("interpreter, async: " + name, work)


def of_one_sandbox():
    box = Sandbox.create(timeout=600, metadata={"who": "python"})
    try:
        sync_scenarios(box)

        async def rest():
            await async_scenarios(await AsyncSandbox.connect(box.sandbox_id))

        asyncio.run(rest())
    finally:
        scenario("sync: killed", lambda: box.kill())


def of_code():
    if not any(wanted("interpreter" + name) for name in (": state between pieces of code", ", async: a value")):
        return
    notebook = Interpreter.create(template=os.environ.get("E2B_TEST_TEMPLATE", "base"), timeout=600)
    try:
        interpreter_scenarios(notebook)

        async def rest():
            await interpreter_async(await AsyncInterpreter.connect(notebook.sandbox_id))

        asyncio.run(rest())
    finally:
        notebook.kill()


def of_async_clients():
    """What the synchronous clients do."""
    if os.environ.get("STACYVM_E2B") != "all":
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        Boxes = Blocking(AsyncSandbox, loop)
        own_scenarios(Boxes, "async client: ")
        with Boxes.create(timeout=600, metadata={"who": "python"}) as box:
            sync_scenarios(box, Boxes, "async client: ")
        template = os.environ.get("E2B_TEST_TEMPLATE", "base")
        with Blocking(AsyncInterpreter, loop).create(template=template, timeout=600) as notebook:
            interpreter_scenarios(notebook, "interpreter, async client: ")
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main():
    """Three at a time; what fails outside a scenario ends the program with its words."""
    failed = []

    def lane(work):
        try:
            work()
        except BaseException:
            failed.append(traceback.format_exc())

    lanes = [threading.Thread(target=lane, args=(work,)) for work in (of_one_sandbox, of_code, own_scenarios)]
    for each in lanes:
        each.start()
    for each in lanes:
        each.join()
    lane(of_async_clients)
    if failed:
        sys.exit("\n".join(failed))


main()

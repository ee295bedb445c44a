"""What users of E2B's Python SDKs do, synchronous and asynchronous. Prints one line of JSON for each scenario."""
import asyncio
import json
import sys
import time

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


def tell(name, outcome, begun, why=None):
    print(json.dumps({"name": name, "outcome": outcome, "ms": round((time.monotonic() - begun) * 1000), "why": why}), flush=True)


def scenario(name, work, *args):
    begun = time.monotonic()
    try:
        work(*args)
        tell(name, "passed", begun)
    except Exception as error:
        tell(name, "failed", begun, type(error).__name__ + ": " + str(error))


async def ascenario(name, work, *args):
    begun = time.monotonic()
    try:
        await work(*args)
        tell(name, "passed", begun)
    except Exception as error:
        tell(name, "failed", begun, type(error).__name__ + ": " + str(error))


def raises(kind, work):
    try:
        work()
    except kind as error:
        return error
    raise AssertionError("no " + kind.__name__)


def until(holds):
    limit = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


def sync_scenarios(box):
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

    for name, work in [
        ("information", info), ("listed by metadata", listed), ("its time is set", timeout), ("a command", command),
        ("a command that fails", fails), ("environment, directory, user", options), ("output as it comes", callbacks),
        ("standard input", background), ("connect and kill", kill), ("a command that takes too long", late),
        ("text files", text), ("bytes and streams", data), ("several files", several), ("directories", directories),
        ("moved and removed", moved), ("a watcher", watcher), ("a terminal", terminal), ("metrics", metrics),
        ("a signed link", links), ("much output", many), ("paused and resumed", paused), ("a snapshot", snapshot),
        ("keys and ids that are not known", strangers),
    ]:
        scenario("sync: " + name, work)


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

    for name, work in [("a command", command), ("eight at once", at_once), ("in the background", background),
                       ("files", files), ("changes in a directory", watch), ("a terminal", terminal), ("information", info)]:
        await ascenario("async: " + name, work)


def interpreter_scenarios(box):
    def state():
        assert box.run_code("x = 20").error is None
        done = box.run_code("x += 1; x * 2")
        assert done.text == "42" and done.execution_count == 2, (done, done.execution_count)

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
        assert box.run_code("import os; os.getcwd()", context=other).text == "'/tmp'"
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
        assert box.run_code("import os; os.environ['E']", envs={"E": "v"}).text == "'v'"
        assert box.run_code("os.environ.get('E')").results == []

    def awaits():
        assert box.run_code("import asyncio\nawait asyncio.sleep(0.01)\n'done'").text == "'done'"

    def magic():
        assert "".join(box.run_code("!echo by the shell").logs.stdout) == "by the shell\n"

    def late():
        raises(TimeoutException, lambda: box.run_code("while True: pass", timeout=2))
        assert box.run_code("'again'").text == "'again'"

    def large():
        assert len(box.run_code("'x' * 2_000_000").text) == 2_000_002

    for name, work in [("state between pieces of code", state), ("output", output), ("an error with its lines", error),
                       ("rich results", rich), ("contexts", contexts), ("no standard input", refused),
                       ("environment of one call", environment), ("await", awaits), ("a shell line", magic),
                       ("code that takes too long", late), ("a large result", large)]:
        scenario("interpreter: " + name, work)


async def interpreter_async(box):
    async def code():
        assert (await box.run_code("1 + 1")).text == "2"

    await ascenario("interpreter, async: a value", code)


def main():
    box = Sandbox.create(timeout=300, metadata={"who": "python"})
    try:
        sync_scenarios(box)

        async def rest():
            await async_scenarios(await AsyncSandbox.connect(box.sandbox_id))

        asyncio.run(rest())
    finally:
        scenario("sync: killed", lambda: box.kill())
    notebook = Interpreter.create(timeout=300)
    try:
        interpreter_scenarios(notebook)

        async def rest():
            await interpreter_async(await AsyncInterpreter.connect(notebook.sandbox_id))

        asyncio.run(rest())
    finally:
        notebook.kill()


main()
sys.stdout.flush()

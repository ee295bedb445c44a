"""What the Python package does, against a real server: the scenarios of sdk.test.ts, by their names. The synchronous run is made of it."""
import os

from stacyvm_sdk import AsyncClient, AsyncSandbox, ConflictError, Exit, InvalidError, NotFoundError, Output, TimeoutError

IMAGE = "stacyvm/busybox"
QUIT = "trap 'echo asked; exit 8' QUIT; sleep 60 & wait"


async def collected(pieces) -> str:
    return "".join([piece async for piece in pieces])


async def rejects(kind, work, *arguments, **options):
    try:
        await work(*arguments, **options)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


async def main(url: str) -> None:
    async with AsyncClient(url) as client:
        sandbox = await client.create(image=IMAGE, memory_mb=256, metadata={"for_test": "yes"})
        for name, scenario in SCENARIOS.items():
            await scenario(client, sandbox)
            print(name, flush=True)


async def life(client, sandbox) -> None:
    assert sandbox.state == "running"
    assert sandbox.info.boot.total_ms > 0
    assert (await client.get(sandbox.id)).info.metadata["for_test"] == "yes"
    assert any(each.id == sandbox.id for each in await client.list())
    error = await rejects(NotFoundError, client.get, "sb-00000000")
    assert error.status == 404 and error.request_id
    async with await AsyncSandbox.create(url=client.url, image=IMAGE, memory_mb=256, ttl=90) as own:
        assert (await own.refresh()).state == "running"
    await rejects(NotFoundError, client.get, own.id)


async def commands(client, sandbox) -> None:
    assert (await sandbox.exec("echo out; echo err >&2; exit 3")).exit_code == 3
    assert (await sandbox.exec(["echo", "a b", "$HOME"])).stdout == "a b $HOME\n"
    assert (await sandbox.exec("wc -c", stdin=bytes([0, 255, 10]))).stdout.strip() == "3"
    assert (await sandbox.exec("cat", stdin="text")).stdout == "text"
    await rejects(TimeoutError, sandbox.exec, "sleep 30", timeout=0.3)
    await rejects(InvalidError, sandbox.exec, ["/no/such/program"])
    failed = await rejects(Exception, sandbox.exec, "echo why >&2; exit 7", check=True)
    assert (failed.exit_code, failed.stderr) == (7, "why\n"), failed
    events = [event async for event in sandbox.stream("echo one; echo two >&2; exit 4")]
    assert Output("stderr", "two\n") in events
    assert events[-1] == Exit(4, None, "exited")
    assert (await sandbox.history())[0].exit_code == 4


async def run(client, sandbox) -> None:
    done = await client.run(
        "cat /in/a /in/b | wc -c; mkdir /out; echo $WORD >/out/word; echo err >&2; exit 3",
        image="stacyvm/busybox",
        memory_mb=256,
        env={"WORD": "hidden"},
        files={"/in/a": "é", "/in/b": bytes([0, 255])},
        collect=["/out/word", "/out/none"],
    )
    assert (done.exit_code, done.stdout, done.stderr) == (3, "4\n", "err\n"), done
    assert (done.files, done.missing) == ({"/out/word": b"hidden\n"}, ["/out/none"])
    await rejects(TimeoutError, client.run, "sleep 30", image="stacyvm/busybox", memory_mb=256, timeout=0.3)
    await rejects(NotFoundError, client.get, done.sandbox_id)


async def conversations(client, sandbox) -> None:
    cat = await sandbox.spawn(["cat"])
    await cat.write("to and fro")
    await cat.close_stdin()
    echoed = b"".join([chunk.data async for chunk in cat])
    assert echoed == b"to and fro"
    assert (await cat.wait()).exit_code == 0
    await rejects(ConflictError, cat.write, "late")

    sleeping = await sandbox.spawn("trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done")
    said = ""
    async for piece in sleeping.text():
        said += piece
        if "ready" in said and "caught" not in said:
            await sleeping.kill("SIGINT")
    assert "caught" in said
    assert (await sleeping.wait()).exit_code == 9

    late = await sandbox.spawn(QUIT, timeout=0.5, stop_signal="SIGQUIT")
    assert await collected(late.text()) == "asked\n"
    assert await late.wait() == Exit(8, None, "timeout")

    async with await sandbox.shell(pty=(33, 99)) as shell:
        await shell.write("stty size; exit 5\n")
        assert "33 99" in await collected(shell.text())
        assert (await shell.wait()).exit_code == 5
    async with await sandbox.spawn("sleep 100") as ended:
        pid = ended.pid
    while any(process.pid == pid and process.running for process in await sandbox.processes()):
        pass
    await rejects(InvalidError, sandbox.spawn, ["/no/such/program"])


async def detached(client, sandbox) -> None:
    id = await sandbox.start("echo begun; sleep 60")
    assert any(process.id == id and process.running for process in await sandbox.processes())
    attached = await sandbox.attach(id)
    async for piece in attached.text():
        assert "begun" in piece
        break
    await attached.detach()
    again = await sandbox.attach(id)
    await sandbox.kill(id, "SIGKILL")
    assert (await again.wait()).exit_code == 137


async def files(client, sandbox) -> None:
    files = sandbox.files
    await files.write("/workspace/d/a.txt", "texté")
    assert await files.read("/workspace/d/a.txt") == "texté"
    data = os.urandom(50_000)

    async def pieces():
        for at in range(0, len(data), 7_000):
            yield data[at : at + 7_000]

    await files.write("/workspace/d/b.bin", pieces(), mode=0o600)
    assert await files.read_bytes("/workspace/d/b.bin") == data
    assert await files.read_bytes("/workspace/d/b.bin", offset=10, length=5) == data[10:15]
    assert (await files.stat("/workspace/d/b.bin")).mode == "600"
    await files.chmod("/workspace/d/b.bin", "+x")
    assert (await files.stat("/workspace/d/b.bin")).mode == "711"
    await files.write_archive("/workspace/copy", files.read_archive("/workspace/d"))
    names = [file.name for file in await files.list("/workspace/copy", recursive=True)]
    assert "a.txt" in names and "b.bin" in names, names
    await files.copy("/workspace/d/a.txt", "/workspace/d/c.txt")
    await files.move("/workspace/d/c.txt", "/workspace/d/e/c.txt")
    await files.mkdir("/workspace/d/f")
    assert await files.glob("/workspace/d/e/*") == ["/workspace/d/e/c.txt"]
    writing = await sandbox.start("while :; do echo more > /workspace/d/new; sleep 0.1; done")
    async for change in files.watch("/workspace/d"):
        if change.path.endswith("/new"):
            break
    await sandbox.kill(writing, "SIGKILL")
    await files.remove("/workspace/d", recursive=True)
    assert not await files.exists("/workspace/d")


async def ports(client, sandbox) -> None:
    await sandbox.files.write("/tmp/www/index.html", "served from inside")
    await sandbox.exec("httpd -p 8080 -h /tmp/www")
    port = sandbox.port(8080)
    assert (await port.request("GET", "/index.html")).text == "served from inside"
    assert port.preview_url.startswith(f"http://8080-{sandbox.id}.localhost:")
    async with await port.connect() as tunnel:
        await tunnel.send(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = b"".join([part async for part in tunnel])
    assert answer.endswith(b"served from inside")


async def states(client, sandbox) -> None:
    types = []
    await sandbox.pause()
    assert (await sandbox.resume()).state == "running"
    async for event in client.events(types=["sandbox.*"], sandbox_id=sandbox.id, after="evt-0"):
        types.append(event.type)
        if event.type == "sandbox.resumed":
            break
    assert types[0] == "sandbox.created" and "sandbox.paused" in types, types
    hosts = ["*.example.com"]
    assert (await sandbox.allow(hosts)).allowed_hosts == hosts
    assert (await sandbox.network()).allowed_hosts == hosts
    await sandbox.extend("30m")
    await sandbox.files.write("/workspace/kept", "here")
    (copy,) = await sandbox.fork()
    assert await copy.files.read("/workspace/kept") == "here"
    await copy.destroy()
    saved = await sandbox.checkpoint("mark")
    assert [each.id for each in await sandbox.checkpoints()] == [saved.id]
    async with await client.create(checkpoint=saved.id) as later:
        assert await later.files.read("/workspace/kept") == "here"
    await sandbox.files.remove("/workspace/kept")
    await sandbox.restore(saved.id)
    assert await sandbox.files.read("/workspace/kept") == "here"
    await client.checkpoints.remove(saved.id)
    page = await client.event_history(types=["sandbox.*"], sandbox_id=sandbox.id, limit=1)
    assert page.events[0].sandbox_id == sandbox.id and page.next is not None
    older = await client.event_history(before=page.next, sandbox_id=sandbox.id, limit=1)
    assert older.events[0].id != page.events[0].id
    assert (await client.stats())[sandbox.id].supported
    assert (await sandbox.stats()).supported
    assert isinstance(await sandbox.logs(5), list)


async def server(client, sandbox) -> None:
    await client.templates.create("small", image=IMAGE, memory_mb=256, vcpus=1)
    async with await client.templates.spawn("small") as made:
        assert made.info.template == "small"
    await client.templates.remove("small")
    assert len((await client.images.pull(IMAGE, on_progress=lambda _: None)).digest) > 10
    assert len(await client.images.list()) > 0
    assert isinstance(await client.snapshots.list(), list)
    assert (await client.providers())[0].healthy
    assert (await client.health()).status == "ok"
    assert isinstance((await client.pool()).enabled, bool)
    assert (await client.admission(image=IMAGE, ttl=60)).allowed
    assert (await client.quotas.put("alice", max_sandboxes=2, max_ttl=3600)).max_ttl == "1h0m0s"
    assert (await client.quotas.usage("alice")).quota_configured
    await client.quotas.remove("alice")
    assert "admin" in (await client.identity()).scopes
    made = await client.keys.create("python", owner="acme", scopes=["use"], expires_in=60)
    async with AsyncClient(client.url, api_key=made.key) as member:
        assert (await member.identity()).owner == "acme"
        assert await member.list() == []
    assert [key.id for key in await client.keys.list("acme") if key.state == "active"] == [made.id]
    assert (await client.keys.revoke(made.id)).state == "revoked"
    assert "sandboxes" in await client.metrics()
    assert (await client.system_stats()).mem_pct > 0
    assert isinstance(await client.system_history(), list)
    assert any(finding.name == "Node" or finding.state == "ok" for finding in (await client.doctor()).findings)
    await sandbox.destroy()
    assert [each.id for each in await client.list()] == []


SCENARIOS = {
    "create, connect, list": life,
    "exec: shell, arguments, stdin, time limit, streamed": commands,
    "run: files in, output, exit code, files out, gone": run,
    "spawn: stdin, signals, exit; a terminal with its size": conversations,
    "a started command goes on by itself and can be attached to": detached,
    "files: text, bytes, streams, directories, changes": files,
    "ports: HTTP through the server, and a raw connection": ports,
    "pause, fork, checkpoint, events": states,
    "templates, images, snapshots, numbers; `await using` leaves nothing": server,
}

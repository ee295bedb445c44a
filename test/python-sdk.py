"""The published Python SDK drives the server; any mismatch raises. Usage: python-sdk.py URL"""
import asyncio
import sys

from stacyvm import AsyncClient, Client, ProviderError, SandboxNotFound, StacyVMError, Template

url = sys.argv[1]
IMAGE = "stacyvm/busybox"

client = Client(base_url=url, user_id="tester")
assert client.health()["status"] == "ok"
assert any(p["healthy"] if isinstance(p, dict) else p.healthy for p in client.providers())
decision = client.admission(image=IMAGE, ttl="5m")
assert decision.allowed, decision
client.quota_summary()
client.pool_status()
sandbox = client.spawn(image=IMAGE, memory_mb=256, vcpus=1, ttl="10m", metadata={"purpose": "test"})
try:
    result = sandbox.exec("echo hello && echo oops >&2 && exit 4")
    assert (result.exit_code, result.stdout, result.stderr) == (4, "hello\n", "oops\n"), result
    argv = sandbox.exec("echo", args=["a b", "c'd"])
    assert argv.stdout == "a b c'd\n", argv
    assert sandbox.exec("echo $NAME; pwd", env={"NAME": "value"}, workdir="/tmp").stdout == "value\n/tmp\n"
    streamed = "".join(chunk.get("data", "") if isinstance(chunk, dict) else chunk.data for chunk in sandbox.exec_stream("for i in 1 2 3; do echo $i; done"))
    assert streamed == "1\n2\n3\n", repr(streamed)
    sandbox.write_file("/workspace/dir/file.txt", "content")
    assert sandbox.read_file("/workspace/dir/file.txt") == "content"
    assert any(str(f).find("file.txt") >= 0 for f in sandbox.list_files("/workspace/dir"))
    sandbox.move_file("/workspace/dir/file.txt", "/workspace/dir/moved.txt")
    sandbox.chmod_file("/workspace/dir/moved.txt", "0600")
    assert sandbox.stat_file("/workspace/dir/moved.txt")
    assert sandbox.glob_files("/workspace/dir/*.txt") == ["/workspace/dir/moved.txt"]
    sandbox.delete_file("/workspace/dir", recursive=True)
    sandbox.extend_ttl("30m")
    sandbox.refresh()
    assert any(s.id == sandbox.id for s in client.list())
finally:
    sandbox.destroy()
try:
    client.get(sandbox.id)
    raise AssertionError("a destroyed sandbox was found")
except SandboxNotFound:
    pass
client.prune()

# Templates, in the SDK's spelling; spawns always send the SDK's default image, which must not override the template's.
client.templates.save(Template(name="sdk", image=IMAGE, memory_mb=128, vcpus=1, ttl="2h", metadata={"kept": "yes"}))
template = client.templates.get("sdk")
assert (template.ttl, template.vcpus, template.memory_mb, template.metadata) == ("2h0m0s", 1, 128, {"kept": "yes"}), template
assert [t.name for t in client.templates.list()] == ["sdk"]
for box in (client.spawn_template("sdk"), client.spawn(template="sdk")):
    try:
        assert box.exec("echo from a template").stdout == "from a template\n"
    finally:
        box.destroy()
client.templates.delete("sdk")

# Errors as the SDK maps them.
for wrong in (
    lambda: client.get("sb-00000000"),
    lambda: client.spawn_template("none"),
    lambda: client.spawn(image=IMAGE, template="none"),
    lambda: client.spawn(image=IMAGE, provider="none"),
):
    try:
        wrong()
        raise AssertionError("an unknown thing was found")
    except SandboxNotFound:
        pass
for wrong in (
    lambda: client.spawn(image=IMAGE, memory_mb=128, ttl="soon"),
    lambda: client.spawn(image=IMAGE, memory_mb=128, ttl="1000h"),
):
    try:
        wrong()
        raise AssertionError("a wrong ttl was accepted")
    except StacyVMError as error:
        assert not isinstance(error, (SandboxNotFound, ProviderError)), error

# Its time over, a sandbox is gone.
short = client.spawn(image=IMAGE, memory_mb=128, ttl="1s")
with_context = client.spawn(image=IMAGE, memory_mb=128, owner_id="someone", provider="qemu")
with with_context as box:
    try:
        box.exec("sleep 100", timeout="200ms")
        raise AssertionError("no timeout")
    except StacyVMError as error:
        assert "ran longer" in str(error), error
try:
    client.get(with_context.id)
    raise AssertionError("the end of its context left it running")
except SandboxNotFound:
    pass
while any(s.id == short.id for s in client.list()):
    client.prune()


async def asynchronous() -> None:
    async with AsyncClient(base_url=url) as connection:
        boxes = await asyncio.gather(*[connection.spawn(image=IMAGE, memory_mb=256) for _ in range(3)])
        results = await asyncio.gather(*[box.exec("hostname") for box in boxes])
        assert len({r.stdout for r in results}) == 3
        box = boxes[0]
        await box.write_file("/workspace/a.txt", "async")
        assert await box.read_file("/workspace/a.txt") == "async"
        assert await box.glob_files("/workspace/*.txt") == ["/workspace/a.txt"]
        assert "".join([chunk.data async for chunk in box.exec_stream("echo 1; echo 2")]) == "1\n2\n"
        await box.extend_ttl("45m")
        assert len(await connection.list()) >= 3
        await asyncio.gather(*[box.destroy() for box in boxes])


asyncio.run(asynchronous())
print("the Python SDK works against this server")

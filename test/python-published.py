"""Every public method of a published package, whatever it has, against a server. Usage: python-published.py URL PACKAGE IMAGE"""
import asyncio
import importlib
import inspect
import sys

url, package, IMAGE = sys.argv[1:]
sdk = importlib.import_module(package)
called: set[str] = set()


def watched(kind):
    """Notes which of its methods are called."""
    for name, method in list(vars(kind).items()):
        if name.startswith("_") or not inspect.isfunction(method):
            continue

        def wrapper(self, *args, _name=f"{kind.__name__}.{name}", _method=method, **options):
            called.add(_name)
            return _method(self, *args, **options)

        setattr(kind, name, wrapper)
    return {f"{kind.__name__}.{name}" for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")}


kinds = [sdk.Client, sdk.AsyncClient, importlib.import_module(f"{package}.sandbox").Sandbox]
kinds.append(importlib.import_module(f"{package}.async_sandbox").AsyncSandbox)
kinds += [kind for name, kind in vars(importlib.import_module(f"{package}.templates")).items() if name.startswith("Template") and name != "Template"]
expected = set().union(*[watched(kind) for kind in kinds])


def field(value, name):
    return value[name] if isinstance(value, dict) else getattr(value, name)


def templates_of(client):
    """Older versions have the class, and no attribute of the client for it."""
    if hasattr(client, "templates"):
        return client.templates
    module = importlib.import_module(f"{package}.templates")
    (kind,) = [kind for name, kind in vars(module).items() if name.startswith("Template") and name != "Template"]
    return kind(client._http)


def synchronous() -> None:
    with sdk.Client(base_url=url) as client:
        assert client.health()["status"] == "ok"
        assert "enabled" in client.pool_status()
        for optional in ("providers", "quota_summary"):
            if hasattr(client, optional):
                getattr(client, optional)()
        if hasattr(client, "admission"):
            assert client.admission(image=IMAGE).allowed
        templates_of(client).save(sdk.Template(name="published", image=IMAGE, memory_mb=128, ttl="5m"))
        assert templates_of(client).get("published").image == IMAGE
        assert [template.name for template in templates_of(client).list()] == ["published"]
        if hasattr(client, "spawn_template"):
            client.spawn_template("published").destroy()
        templates_of(client).delete("published")

        with client.spawn(image=IMAGE, memory_mb=128, vcpus=1, ttl="5m", provider="docker", metadata={"a": "b"}) as box:
            assert client.get(box.id).state == "running"
            assert any(each.id == box.id for each in client.list())
            result = box.exec("echo out; echo err >&2; exit 3")
            assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n"), result
            assert box.exec("pwd", workdir="/tmp", env={"A": "b"}).stdout == "/tmp\n"
            assert "".join(field(chunk, "data") for chunk in box.exec_stream("echo 1; echo 2")) == "1\n2\n"
            box.write_file("/workspace/dir/a", "text", mode="0600")
            assert box.read_file("/workspace/dir/a") == "text"
            assert len(box.list_files("/workspace/dir")) == 1
            box.move_file("/workspace/dir/a", "/workspace/new/b")
            box.chmod_file("/workspace/new/b", "+x")
            assert field(box.stat_file("/workspace/new/b"), "mode") == "711"
            assert box.glob_files("/workspace/new/*") == ["/workspace/new/b"]
            box.delete_file("/workspace/new", recursive=True)
            box.delete_file("/workspace/new", recursive=True)
            box.extend_ttl("10m")
            box.refresh()
            if hasattr(box, "get_preview_url"):
                assert box.id in box.get_preview_url(3000)
            assert box.id in repr(box)
        client.prune()
        client.close()


async def asynchronous() -> None:
    async with sdk.AsyncClient(base_url=url) as client:
        assert (await client.health())["status"] == "ok"
        for optional in ("providers", "quota_summary", "pool_status"):
            if hasattr(client, optional):
                await getattr(client, optional)()
        if hasattr(client, "admission"):
            assert (await client.admission(image=IMAGE)).allowed
        box = await client.spawn(image=IMAGE, memory_mb=128, ttl="5m")
        try:
            assert (await client.get(box.id)).id == box.id
            assert len(await client.list()) == 1
            assert (await box.exec("echo out")).stdout == "out\n"
            assert "".join([field(chunk, "data") async for chunk in box.exec_stream("echo 1; echo 2")]) == "1\n2\n"
            await box.write_file("/workspace/dir/a", "text")
            assert await box.read_file("/workspace/dir/a") == "text"
            assert len(await box.list_files("/workspace/dir")) == 1
            await box.move_file("/workspace/dir/a", "/workspace/new/b")
            await box.chmod_file("/workspace/new/b", "0600")
            assert field(await box.stat_file("/workspace/new/b"), "mode") == "600"
            assert await box.glob_files("/workspace/new/*") == ["/workspace/new/b"]
            await box.delete_file("/workspace/new", recursive=True)
            for optional in ("extend_ttl",):
                if hasattr(box, optional):
                    await getattr(box, optional)("10m")
            await box.refresh()
            if hasattr(box, "get_preview_url"):
                assert box.id in box.get_preview_url(3000)
        finally:
            await box.destroy()
        if hasattr(client, "spawn_template"):
            with sdk.Client(base_url=url) as other:
                templates_of(other).save(sdk.Template(name="published", image=IMAGE, memory_mb=128))
                await (await client.spawn_template("published")).destroy()
                templates_of(other).delete("published")
        await client.prune()
        await client.close()


synchronous()
asyncio.run(asynchronous())
missed = expected - called
assert not missed, f"never called: {sorted(missed)}"
print(f"{package} {getattr(sdk, '__version__', '')}: {len(called)} methods")

"""Files in a sandbox: text, bytes, streams, directories as tar, and changes as they happen."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import List, Union

from ..decode import decode
from ..errors import NotFoundError
from ..models import FileInfo
from ..values import FileChange, mode_text, query, without_none
from .transport import LONG, AsyncTransport, segment, server_sent

#: Text, bytes, or pieces of bytes.
Content = Union[str, bytes, AsyncIterable[bytes]]


class AsyncFiles:
    def __init__(self, transport: AsyncTransport, sandbox: str) -> None:
        self._transport = transport
        self._path = f"/sandboxes/{segment(sandbox)}/files"

    async def write(
        self, path: str, data: Content, *, mode: int | None = None, append: bool = False, exclusive: bool = False
    ) -> None:
        """Writes a whole file; its directories are made. A reader sees the old content or the new."""
        await self._transport.call(
            "PUT",
            self._path,
            params=query(path=path, mode=mode_text(mode), append=append, exclusive=exclusive),
            content=data.encode() if isinstance(data, str) else data,
            headers={"content-type": "application/octet-stream"},
            timeout=LONG,
        )

    async def read(self, path: str) -> str:
        """As UTF-8 text."""
        return (await self.read_bytes(path)).decode()

    async def read_bytes(self, path: str, *, offset: int | None = None, length: int | None = None) -> bytes:
        return b"".join([part async for part in self.read_stream(path, offset=offset, length=length)])

    async def read_stream(
        self, path: str, *, offset: int | None = None, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Of any size; the reader sets the pace."""
        headers = {}
        if offset is not None or length is not None:
            start = offset or 0
            headers["range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        async with self._transport.open(
            "GET", self._path, params=query(path=path), headers=headers, timeout=LONG
        ) as response:
            async for part in response.aiter_bytes():
                yield part

    async def list(self, path: str = "/", *, recursive: bool = False, depth: int | None = None) -> List[FileInfo]:
        params = query(path=path, recursive=recursive, depth=depth)
        reply = await self._transport.call("GET", f"{self._path}/list", params=params)
        return decode(list[FileInfo], reply)

    async def stat(self, path: str) -> FileInfo:
        return decode(FileInfo, await self._transport.call("GET", f"{self._path}/stat", params=query(path=path)))

    async def exists(self, path: str) -> bool:
        try:
            await self.stat(path)
            return True
        except NotFoundError:
            return False

    async def glob(self, pattern: str) -> List[str]:
        reply = await self._transport.call("GET", f"{self._path}/glob", params=query(pattern=pattern))
        return decode(list[str], reply)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        await self._transport.call("DELETE", self._path, params=query(path=path, recursive=recursive))

    async def move(self, old: str, new: str) -> None:
        await self._transport.call("POST", f"{self._path}/move", body={"old_path": old, "new_path": new})

    async def copy(self, old: str, new: str, *, recursive: bool = False) -> None:
        body = {"old_path": old, "new_path": new, "recursive": recursive}
        await self._transport.call("POST", f"{self._path}/copy", body=body)

    async def chmod(self, path: str, mode: int | str, *, recursive: bool = False) -> None:
        """`mode`: bits such as `0o600`, or letters such as `"+x"`."""
        body = {"path": path, "mode": mode_text(mode), "recursive": recursive}
        await self._transport.call("POST", f"{self._path}/chmod", body=body)

    async def mkdir(self, path: str, *, mode: int | None = None) -> None:
        """With its parents."""
        await self._transport.call("POST", f"{self._path}/mkdir", body=without_none(path=path, mode=mode_text(mode)))

    async def read_archive(self, path: str) -> AsyncIterator[bytes]:
        """A directory as a tar stream.

        The sandbox made it, so it is not to be trusted: unpack it with ``tarfile`` and ``filter="data"``, into an empty directory.
        """
        async with self._transport.open(
            "GET", f"{self._path}/archive", params=query(path=path), timeout=LONG
        ) as response:
            async for part in response.aiter_bytes():
                yield part

    async def write_archive(self, path: str, tar: Content) -> None:
        """Unpacks a tar stream below a directory."""
        await self._transport.call(
            "PUT",
            f"{self._path}/archive",
            params=query(path=path),
            content=tar,
            headers={"content-type": "application/x-tar"},
            timeout=LONG,
        )

    async def watch(self, path: str, *, recursive: bool = False) -> AsyncIterator[FileChange]:
        """Changes below a path, until the loop is left."""
        async with self._transport.open(
            "GET", f"{self._path}/watch", params=query(path=path, recursive=recursive), timeout=LONG
        ) as response:
            async for change in server_sent(response):
                yield FileChange(change["change"], change["path"], change.get("to"))

"""The key that a server leaves for programs of its own user: ``server.key`` in its data directory.

Readable by that user only. It goes to that server alone: to its address, and only while the process that wrote it lives, since
anybody may listen on a port that it has left.
"""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit


def local_key(url: str) -> str | None:
    """@returns ``None`` where there is none: another host, another user's, no such server"""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    root = os.environ.get("STACYVM_DATA_DIR") or os.path.join(data, "stacyvm")
    path = os.path.join(root, "server.key")
    try:
        facts = os.stat(path)
        if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            return None
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if _origin(found["url"]) != _origin(url):
            return None
        with open(f"/proc/{int(found['pid'])}/stat", encoding="utf-8") as file:
            # Behind the program's name, which may have spaces and brackets: field 22, counted from field 3.
            start_time = file.read().rpartition(")")[2].split()[19]
        return str(found["key"]) if start_time == found["start_time"] else None
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def key_of_file() -> str | None:
    """In the file that ``STACYVM_API_KEY_FILE`` names, if it does. @raises ValueError when there is none in it"""
    path = os.environ.get("STACYVM_API_KEY_FILE")
    if not path:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            key = file.read().strip()
    except OSError as error:
        raise ValueError(str(error)) from error
    if not key:
        raise ValueError(f"{path} is empty")
    return key


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return (parts.scheme, "127.0.0.1" if host == "localhost" else host, parts.port)

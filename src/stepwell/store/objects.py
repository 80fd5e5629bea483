"""Objects by key in a folder or an S3-compatible store: put once, put where nobody else has put meanwhile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from stepwell.errors import StoreError

MAX_OBJECT_BYTES = 64 * 1024 * 1024
"""What is read at once; what is larger is not ours."""
KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")

Headers = dict[str, str]
"""Content-Type, Content-Encoding and Cache-Control of an object. A folder keeps none: its web server says them."""


class Held(Struct, frozen=True):
    """An object as it was read; the tag changes whenever the bytes do."""

    data: bytes
    tag: str


class Objects(Protocol):
    """A place for objects. Every put is atomic: a reader sees all of an object or nothing. All raise StoreError."""

    @property
    def url(self) -> str:
        """Where it is, as a person would say it."""

    def get(self, key: str) -> Held | None:
        """The object, or None where there is none."""

    def create(self, key: str, data: bytes, headers: Headers) -> bool:
        """Put an object where there is none; False where there is one already, which stays."""

    def swap(self, key: str, data: bytes, headers: Headers, tag: str | None) -> bool:
        """Put an object in the place of the one with `tag` (None: of none); False where it is another by now."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of each object whose key begins with `prefix` (a folder's name with its slash)."""


def opened(url: str) -> Objects:
    """The store at a path, `file://` or `s3://bucket/prefix` (endpoint, region, credentials from AWS_*).

    Nothing is asked of it yet. Raises StoreError for any other form.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from stepwell.store.bucket import bucket  # noqa: PLC0415 - obstore is an extra

        return bucket(url, parts.netloc, unquote(parts.path).strip("/"))
    from stepwell.store.folder import Folder  # noqa: PLC0415 - it needs this file's names

    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return Folder(Path(unquote(parts.path)))
    if "://" in url or not url.strip():
        raise StoreError(f"{url!r} is no place for objects: give a folder, file:///folder or s3://bucket/prefix")
    return Folder(Path(url))


def checked(key: str) -> str:
    """The key itself. Raises StoreError where it could leave the place or hide in it."""
    if KEY.fullmatch(key) is None:
        raise StoreError(f"{key!r} is no key: letters, digits, '.', '_', '-', and '/' between names")
    return key


def conditional(objects: Objects, key: str, data: bytes, headers: Headers) -> bool:
    """Say whether a store refuses what it must, tried harmlessly on an object that is there with these very bytes.

    Some servers that speak S3 take every put and so let two publishers overwrite each other.
    """
    return not objects.create(key, data, headers) and not objects.swap(key, data, headers, '"stale"')

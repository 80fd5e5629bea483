"""Objects in an S3-compatible store, by obstore."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from stepwell.errors import StoreError
from stepwell.store.objects import MAX_OBJECT_BYTES, Headers, Held, checked

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
PATIENCE_S = 30


@dataclass(frozen=True, slots=True)
class Bucket:
    """Objects under a prefix of a bucket."""

    url: str
    store: S3Store

    def get(self, key: str) -> Held | None:
        """The object, or None where there is none. Raises StoreError."""
        with self.asking("read", key):
            try:
                found = obstore.get(self.store, checked(key))
            except FileNotFoundError:
                return None
            if found.meta["size"] > MAX_OBJECT_BYTES:
                raise StoreError(f"{self.url}/{key} is larger than {MAX_OBJECT_BYTES} bytes: nothing of ours")
            return Held(bytes(found.bytes()), found.meta["e_tag"] or "")

    def create(self, key: str, data: bytes, headers: Headers) -> bool:
        """Put an object where there is none. Raises StoreError."""
        with self.asking("written", key):
            try:
                obstore.put(self.store, checked(key), data, mode="create", attributes=headers, use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def swap(self, key: str, data: bytes, headers: Headers, tag: str | None) -> bool:
        """Put an object in the place of the one with `tag`. Raises StoreError."""
        if tag is None:
            return self.create(key, data, headers)
        with self.asking("written", key):
            try:
                obstore.put(
                    self.store, checked(key), data, mode={"e_tag": tag}, attributes=headers, use_multipart=False
                )
            except (PreconditionError, AlreadyExistsError, FileNotFoundError):
                return False
            return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of each object below a folder. Raises StoreError."""
        with self.asking("listed", prefix):
            return {meta["path"]: meta["size"] for batch in obstore.list(self.store, prefix) for meta in batch}

    @contextmanager
    def asking(self, what: str, key: str) -> Iterator[None]:
        """Turn what obstore raises into a StoreError in one line."""
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            why = " ".join(str(error).split())[:300]
            raise StoreError(f"{self.url}/{key} cannot be {what}: {why}; look at AWS_* and the bucket") from error


def bucket(url: str, name: str, prefix: str) -> Bucket:
    """The objects of a bucket; plain HTTP only where the endpoint in the environment says so. Raises StoreError."""
    endpoint = next((os.environ[each] for each in ENDPOINTS if os.environ.get(each)), "")
    if not name:
        raise StoreError(f"{url!r} names no bucket: s3://bucket/prefix")
    try:
        store = S3Store(
            name,
            prefix=prefix or None,
            client_options={"allow_http": endpoint.startswith("http://"), "timeout": timedelta(seconds=PATIENCE_S)},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=PATIENCE_S)},
        )
    except (BaseError, ValueError) as error:
        raise StoreError(f"{url} cannot be opened: {error}") from error
    return Bucket(url.rstrip("/"), store)

"""The object store: immutable pieces of bytes by key, in a folder or in an S3 bucket.

The only place that knows which. Keys are relative paths (`payloads/9f86…`); a record names an
object by its key alone, so that a store can be moved. Calls block.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

_KEY = re.compile(
    r"[A-Za-z0-9_=+@~,-][A-Za-z0-9._=+@~,-]*(?:/[A-Za-z0-9_=+@~,-][A-Za-z0-9._=+@~,-]*)*"
)
KEY_CHARS_MAX = 512
_PART = ".part"
_DRAFT_MS = 24 * 60 * 60 * 1000
_FOLDER_TRIES = 10
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound"})
_EXISTS = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})


class ObjectStoreError(Exception):
    """The store could not do it: the message says what and where; it may be tried again."""


class NoSuchObjectError(ObjectStoreError):
    """There is no object of that key."""


class ObjectStore(Protocol):
    """Immutable objects by key. Putting the same key again is harmless and changes nothing."""

    def put(self, key: str, data: bytes) -> None:
        """Store an object: readers see all of it or nothing; durable on return."""
        ...

    def get(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        """Return an object or a part of it (less at its end); NoSuchObjectError."""
        ...

    def size(self, key: str) -> int:
        """Return an object's size in bytes; NoSuchObjectError."""
        ...

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; harmless when there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix`, sorted."""
        ...

    def tidy(self, now_ms: int) -> None:
        """Remove what writers that were killed left more than a day ago; no object."""
        ...


def open_store(uri: str) -> ObjectStore:
    """Return the store of a `file:///folder` or `s3://bucket/prefix` URI."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return FileStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(parts.netloc, parts.path.strip("/"))
    raise ObjectStoreError(
        f"object store {uri!r}: expected file:///absolute/folder or s3://bucket/prefix"
    )


def content_key(kind: str, data: bytes) -> str:
    """Return the key of data that is named by its sha256: `payloads/<64 digits>`."""
    return f"{kind}/{hashlib.sha256(data).hexdigest()}"


def checked_key(key: str) -> str:
    """Return a key that can leave no folder; ValueError for any other."""
    if len(key) > KEY_CHARS_MAX or _KEY.fullmatch(key) is None:
        raise ValueError(
            f"object key {key[:80]!r}: use parts of letters, digits and ._=+@~,- joined by '/', "
            "none of which begins with a dot"
        )
    return key


class FileStore:
    """Objects as files of a folder; written beside and linked into place."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, made when the first object is put."""
        self._folder = folder

    def put(self, key: str, data: bytes) -> None:
        """Store an object; an existing one stays as it is."""
        path = self._path(key)
        if path.exists():
            return
        try:
            beside = _written_beside(path, data)
            try:
                with suppress(FileExistsError):
                    path.hardlink_to(beside)
            finally:
                beside.unlink(missing_ok=True)
            with suppress(FileNotFoundError):  # removed again, with its folder, by somebody else
                _sync_folder(path.parent)
        except OSError as error:
            raise ObjectStoreError(f"{path} can't be written: {error.strerror}") from error

    def get(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        """Return an object or a part of it."""
        try:
            with self._path(key).open("rb") as file:
                file.seek(first)
                return file.read(-1 if length is None else length)
        except FileNotFoundError as error:
            raise NoSuchObjectError(f"no object {key}") from error
        except OSError as error:
            raise ObjectStoreError(f"object {key} can't be read: {error.strerror}") from error

    def size(self, key: str) -> int:
        """Return an object's size in bytes."""
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError as error:
            raise NoSuchObjectError(f"no object {key}") from error

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._remove(self._path(key))

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix`, sorted."""
        folder = self._folder / prefix.rpartition("/")[0]
        if not folder.is_dir():
            return
        keys = (path.relative_to(self._folder).as_posix() for path in _files(folder))
        yield from sorted(k for k in keys if k.startswith(prefix) and not k.endswith(_PART))

    def tidy(self, now_ms: int) -> None:
        """Remove drafts of killed writers."""
        for path in _files(self._folder):
            if path.name.startswith(".") and path.name.endswith(_PART):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime * 1000 < now_ms - _DRAFT_MS:
                        self._remove(path)

    def _remove(self, path: Path) -> None:
        """Remove a file, and the folders that are empty without it: each would be listed again."""
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self._folder:
                return
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return  # not empty

    def _path(self, key: str) -> Path:
        return self._folder / checked_key(key)


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, onerror=_unless_gone):
        yield from (Path(parent, name) for name in names)


def _unless_gone(error: OSError) -> None:
    """Raise for a folder that can't be read; one that was removed meanwhile is empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _written_beside(path: Path, data: bytes) -> Path:
    """Write a draft into the folder of `path`, which nobody removes from then on."""
    beside = path.with_name(f".{os.getpid()}.{os.urandom(6).hex()}{_PART}")
    for _ in range(_FOLDER_TRIES):
        # who removes the last object of a folder takes the folder away, between these two or
        # within the first
        with suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_durably(beside, data)
            return beside
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_durably(beside, data)
    return beside


def _write_durably(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class S3Store:
    """Objects in an S3 bucket; credentials and endpoint as boto3 finds them."""

    def __init__(self, bucket: str, prefix: str = "", client: Any = None) -> None:
        """Use `bucket`, keys below `prefix`; `client` replaces boto3's own."""
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = client if client is not None else _s3_client()

    def put(self, key: str, data: bytes) -> None:
        """Store an object; an existing one stays as it is."""
        from botocore.exceptions import ClientError

        where = self._where(key)
        try:
            self._client.put_object(**where, Body=data, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) not in _EXISTS:
                raise ObjectStoreError(f"object {key} can't be written: {error}") from error
        except Exception as error:
            raise ObjectStoreError(f"object {key} can't be written: {error}") from error

    def get(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        """Return an object or a part of it."""
        if length == 0:
            return b""
        last = "" if length is None else str(first + length - 1)
        part = {"Range": f"bytes={first}-{last}"} if first or length is not None else {}
        try:
            answer = self._asked("get_object", key, **part)
        except _RangeError:
            return b""
        data: bytes = answer["Body"].read()
        return data

    def size(self, key: str) -> int:
        """Return an object's size in bytes."""
        return int(self._asked("head_object", key)["ContentLength"])

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        try:
            self._asked("head_object", key)
        except NoSuchObjectError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(NoSuchObjectError):
            self._asked("delete_object", key)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that begin with `prefix`, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        for page in pages:
            for entry in page.get("Contents", ()):
                yield str(entry["Key"])[len(self._prefix) :]

    def tidy(self, now_ms: int) -> None:
        """Do nothing: a bucket has an object or has not."""

    def _where(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}

    def _asked(self, operation: str, key: str, **arguments: str) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        where = self._where(key)
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**where, **arguments)
        except ClientError as error:
            if _code(error) in _NOT_FOUND:
                raise NoSuchObjectError(f"no object {key}") from error
            if _code(error) in ("InvalidRange", "416"):
                raise _RangeError(key) from error
            raise ObjectStoreError(f"object {key}: {error}") from error
        except BotoCoreError as error:
            raise ObjectStoreError(f"object {key}: {error}") from error
        return answer


class _RangeError(ObjectStoreError):
    """The part asked for begins at or after the object's end."""


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _s3_client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"max_attempts": 4, "mode": "standard"}
    return boto3.client("s3", config=Config(retries=retries, connect_timeout=5, read_timeout=30))

"""The only place that fetches Kafka's jars and decides whether the fetched ones may be run.

`kafka.sha256` is the truth: one line a jar, `sha256  size  path in a Maven repository`. jgo
downloads; it neither pins nor checks what it downloaded, so every start compares every jar.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from infra.embedded.errors import ChecksumError, DiskFullError, DownloadError, EmbeddedError

LIST_PATH = Path(__file__).with_name("kafka.sha256")
DOWNLOADS_AT_ONCE = 8
TIMEOUT_S = 30
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
)
TRIES_MAX = 3

Progress = Callable[[str, int, int], None]
"""Called with (what is being fetched, bytes so far, bytes in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jar:
    """One line of the list: what a jar must be, and where a Maven repository has it."""

    sha256: str
    size: int
    path: str

    @property
    def name(self) -> str:
        """The file's name in the cache."""
        return PurePosixPath(self.path).name

    @property
    def coordinate(self) -> str:
        """`group:artifact:version`, as jgo takes it."""
        parts = PurePosixPath(self.path).parts
        return f"{'.'.join(parts[:-3])}:{parts[-3]}:{parts[-2]}"


def wanted_jars(list_path: Path = LIST_PATH) -> tuple[Jar, ...]:
    """Return the committed list in its order, which is the order of the class path."""
    jars = []
    for line in list_path.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            sha256, size, path = line.split()
            jars.append(Jar(sha256=sha256, size=int(size), path=path))
    return tuple(jars)


def jars_dir(cache: Path) -> Path:
    """Return the folder of the cache that holds exactly the listed jars."""
    return cache / "kafka-4.4.0"


def class_path(cache: Path, jars: tuple[Jar, ...] | None = None) -> str:
    """Return Kafka's class path after comparing every jar with the list.

    Raises ChecksumError if a jar differs, is missing, or does not belong there.
    """
    jars = wanted_jars() if jars is None else jars
    folder = jars_dir(cache)
    expected = {jar.name for jar in jars}
    found = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    for name in sorted(found - expected):
        raise ChecksumError(
            f"{folder / name} does not belong to Kafka 4.4.0 as Tailrace ships it, so Kafka is "
            f"not started. If you did not put it there, find out who did. Then remove it."
        )
    for jar in jars:
        _check(folder / jar.name, jar)
    return os.pathsep.join(str(folder / jar.name) for jar in jars)


def is_complete(cache: Path) -> bool:
    """Tell whether all listed jars are there (their content is `class_path`'s business)."""
    folder = jars_dir(cache)
    return all((folder / jar.name).exists() for jar in wanted_jars())


def missing_bytes(cache: Path) -> int:
    """Return how much `fetch` would download."""
    folder = jars_dir(cache)
    return sum(jar.size for jar in wanted_jars() if not (folder / jar.name).exists())


def fetch(cache: Path, progress: Progress | None = None) -> None:
    """Bring the missing jars into the cache; one process at a time, safe to kill at any moment.

    A jar gets its final name only after its content was compared with the list. Raises
    DownloadError, ChecksumError or DiskFullError.
    """
    folder = jars_dir(cache)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(cache / "fetch.lock"):
        missing = [jar for jar in wanted_jars() if not (folder / jar.name).exists()]
        if missing:
            _need_space(cache, sum(jar.size for jar in missing) * 2)
            _fetch_missing(missing, cache=cache, progress=progress)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, jar: Jar) -> None:
    try:
        actual = sha256_of(path)
    except FileNotFoundError:
        raise ChecksumError(f"{path} is missing. Run `make up`, which fetches it again.") from None
    if actual != jar.sha256:
        raise ChecksumError(
            f"{path} is not the file that Tailrace was made with, so Kafka is not started.\n"
            f"  expected sha256 {jar.sha256}\n"
            f"  found           {actual}\n"
            f"If you did not change it, find out who did. Then remove the file and run `make up`, "
            f"which fetches it again."
        )


def _fetch_missing(missing: list[Jar], *, cache: Path, progress: Progress | None) -> None:
    work = cache / "fetching"
    # What a killed fetch left behind is half files, which jgo would take for whole ones.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    meter = _Meter(total=sum(jar.size for jar in missing), progress=progress)
    try:
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            for done in [pool.submit(_fetch_one, jar, cache, work, meter) for jar in missing]:
                done.result()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch_one(jar: Jar, cache: Path, work: Path, meter: _Meter) -> None:
    for attempt in range(1, TRIES_MAX + 1):
        repository = work / f"{jar.name}.{attempt}"
        try:
            fetched = _download(jar, repository, meter)
            break
        except EmbeddedError:
            raise
        except OSError as error:  # requests' errors are OSErrors
            if attempt == TRIES_MAX or isinstance(error, _no_space_types(error)):
                raise _download_failed(jar, error) from error
        except RuntimeError as error:
            raise _download_failed(jar, error) from error
    else:  # pragma: no cover - the loop always breaks or raises
        raise AssertionError(jar)
    try:
        _check(fetched, jar)
    except ChecksumError as error:
        raise ChecksumError(
            f"The downloaded {jar.name} ({jar.coordinate}) is not the file that Tailrace was made "
            f"with; it was thrown away.\n"
            f"  expected sha256 {jar.sha256} ({jar.size} bytes)\n"
            f"  found           {sha256_of(fetched)} ({fetched.stat().st_size} bytes)\n"
            f"Something between this machine and the Maven repository changes files (a proxy, a "
            f"mirror, a login page). Run `make up` again, from another network if it stays."
        ) from error
    fetched.replace(jars_dir(cache) / jar.name)


def _download(jar: Jar, repository: Path, meter: _Meter) -> Path:
    from jgo.maven import MavenContext
    from jgo.maven._resolver import PythonResolver

    _trust_what_the_machine_trusts()
    resolver = PythonResolver(progress_callback=meter.track)
    context = MavenContext(resolver=resolver, repo_cache=repository, timeout=TIMEOUT_S)
    path: Path = context.create_dependency(jar.coordinate).artifact.resolve()
    return path


def _trust_what_the_machine_trusts() -> None:
    """Let requests use the machine's certificates: a company's proxy is known only there."""
    if os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE"):
        return
    named = os.environ.get("SSL_CERT_FILE")
    for bundle in (*([named] if named else []), *CA_BUNDLES):
        if Path(bundle).is_file():
            os.environ["REQUESTS_CA_BUNDLE"] = bundle
            return


def _no_space_types(error: OSError) -> type[OSError] | tuple[()]:
    import errno

    return OSError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES) else ()


def _download_failed(jar: Jar, error: Exception) -> DownloadError:
    return DownloadError(
        f"Could not fetch {jar.name} ({jar.coordinate}): {type(error).__name__}: {error}\n"
        f"Kafka's jars come from the Maven repository that jgo uses. Check the network and the "
        f"proxy settings (HTTPS_PROXY), then run `make up` again: what is there is kept."
    )


def _need_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskFullError(
            f"{folder} has {free >> 20} MiB free; Kafka's jars need {size >> 20} MiB. Free some "
            f"space, or set TAILRACE_CACHE to a folder on another disk."
        )


@contextlib.contextmanager
def _only_one(lock_path: Path) -> Iterator[None]:
    with lock_path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Meter:
    """Adds up the bytes of several downloads and passes them on."""

    def __init__(self, *, total: int, progress: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def track(self, filename: str, _size: int) -> Iterator[Callable[[int], None]]:
        """Count one file's bytes; what was counted of a failed try is taken back."""
        counted = 0

        def update(count: int) -> None:
            nonlocal counted
            counted += count
            self._add(filename, count)

        try:
            yield update
        except BaseException:
            self._add(filename, -counted)
            raise

    def _add(self, filename: str, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(filename, self._done, self._total)


def update_list(list_path: Path = LIST_PATH) -> None:
    """Resolve Kafka and its logging anew, and write the list; for the maintainer of a new version.

    Each root is resolved alone: together, jgo lets the dependency management of log4j's parent
    replace kafka-clients 4.4.0 by 3.9.1.
    """
    import tempfile

    from jgo.maven import MavenContext

    roots = (
        "org.apache.kafka:kafka_2.13:4.4.0",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",
    )
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder), timeout=TIMEOUT_S)
        lines: dict[str, str] = {}
        for root in roots:
            inputs, transitive = context.resolver.resolve([context.create_dependency(root)])
            for dependency in [*inputs, *transitive]:
                if dependency.scope in ("compile", "runtime", None):
                    path: Any = dependency.artifact.resolve()
                    inside = path.relative_to(folder).as_posix()
                    # One version of a library: the one that Kafka's own resolution chose.
                    lines.setdefault(
                        str(PurePosixPath(inside).parent.parent),
                        f"{sha256_of(path)}  {path.stat().st_size}  {inside}",
                    )
    head = (
        "# Every jar that the embedded broker may load: sha256, size, path in a Maven repository.",
        "# Written by `python -m infra.embedded.jars`; read a change of it line by line.",
    )
    list_path.write_text("\n".join([*head, *lines.values(), ""]), encoding="ascii")


if __name__ == "__main__":
    update_list()

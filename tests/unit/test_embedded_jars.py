"""The list of Kafka's jars: nothing runs that is not on it, byte for byte."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from infra.embedded import jars
from infra.embedded.errors import ChecksumError, DiskFullError, DownloadError
from infra.embedded.jars import Jar, class_path, jars_dir, wanted_jars


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, tuple[Jar, ...]]:
    """Return a cache with two small files, and the list that names them."""
    folder = jars_dir(tmp_path)
    folder.mkdir(parents=True)
    wanted = []
    for name in ("a", "b"):
        content = name.encode() * 100
        (folder / f"{name}-1.jar").write_bytes(content)
        wanted.append(
            Jar(
                sha256=hashlib.sha256(content).hexdigest(),
                size=len(content),
                path=f"org/example/{name}/1/{name}-1.jar",
            )
        )
    return tmp_path, tuple(wanted)


def test_the_class_path_has_the_order_of_the_list(small: tuple[Path, tuple[Jar, ...]]) -> None:
    """Which class wins is decided by the list, not by a directory's order."""
    cache, wanted = small
    folder = jars_dir(cache)

    assert class_path(cache, wanted) == f"{folder}/a-1.jar:{folder}/b-1.jar"
    assert class_path(cache, wanted[::-1]) == f"{folder}/b-1.jar:{folder}/a-1.jar"


def test_a_changed_jar_is_refused_with_both_sums(small: tuple[Path, tuple[Jar, ...]]) -> None:
    """One flipped byte: the file, what it should be, what it is, what to do."""
    cache, wanted = small
    path = jars_dir(cache) / "b-1.jar"
    path.write_bytes(b"B" + path.read_bytes()[1:])

    with pytest.raises(ChecksumError) as error:
        class_path(cache, wanted)

    found = hashlib.sha256(path.read_bytes()).hexdigest()
    for part in (str(path), wanted[1].sha256, found, "make up"):
        assert part in str(error.value)


def test_a_missing_jar_is_refused(small: tuple[Path, tuple[Jar, ...]]) -> None:
    """A class path with a hole is never handed out."""
    cache, wanted = small
    (jars_dir(cache) / "a-1.jar").unlink()

    with pytest.raises(ChecksumError, match=r"a-1\.jar is missing"):
        class_path(cache, wanted)


def test_a_jar_that_is_not_listed_is_refused(small: tuple[Path, tuple[Jar, ...]]) -> None:
    """A file beside the listed ones may have been put there to be loaded."""
    cache, wanted = small
    (jars_dir(cache) / "evil.jar").touch()

    with pytest.raises(ChecksumError, match=r"evil\.jar does not belong"):
        class_path(cache, wanted)


def test_the_committed_list_is_whole() -> None:
    """One version a library, Kafka 4.4.0 throughout, and a binding that writes its log."""
    wanted = wanted_jars()

    libraries = [jar.coordinate.rpartition(":")[0] for jar in wanted]
    assert len(libraries) == len(set(libraries))
    assert {jar.coordinate.rpartition(":")[2] for jar in wanted if "kafka" in jar.path} == {"4.4.0"}
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in wanted)
    assert "org.apache.logging.log4j:log4j-slf4j-impl" in libraries


def test_fetching_needs_room_for_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told before the first byte is fetched."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 5}))

    with pytest.raises(DiskFullError, match=r"MiB free; Kafka's jars need \d+ MiB"):
        jars.fetch(tmp_path)


def test_a_download_that_differs_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy's error page never becomes a jar, and the message says what came instead."""

    def page(_jar: Jar, repository: Path, _meter: object) -> Path:
        repository.mkdir()
        (repository / "page").write_text("<html>please log in</html>", encoding="ascii")
        return repository / "page"

    monkeypatch.setattr(jars, "_download", page)

    with pytest.raises(ChecksumError, match="a login page"):
        jars.fetch(tmp_path)

    assert list(jars_dir(tmp_path).iterdir()) == []
    assert not (tmp_path / "fetching").exists()


def test_no_network_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreachable repository is an error that names the jar and the network."""

    def unreachable(_jar: Jar, _repository: Path, _meter: object) -> Path:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(jars, "_download", unreachable)

    with pytest.raises(DownloadError, match=r"no route to host[\s\S]*Check the network"):
        jars.fetch(tmp_path)


def test_progress_counts_a_failed_try_back() -> None:
    """The bar never passes the end because of a second try."""
    seen: list[int] = []
    meter = jars._Meter(total=100, progress=lambda _name, done, _total: seen.append(done))  # noqa: SLF001

    def cut_off() -> None:
        with meter.track("a.jar", 100) as update:
            update(60)
            raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        cut_off()
    with meter.track("a.jar", 100) as update:
        update(100)

    assert seen == [60, 0, 100]

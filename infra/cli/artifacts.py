"""`tailrace artifacts`: what a run's jobs left, listed and brought here."""

from __future__ import annotations

import hashlib
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from infra.cli import options
from infra.cli.api import connect, part
from infra.cli.errors import CliError, Exit, NotFoundError
from infra.cli.lookup import RUN_HELP, find_run
from infra.cli.output import Column, clean, instant, print_json, print_table
from infra.clock import SystemClock

if TYPE_CHECKING:
    from infra.cli.client import Client

_COPY_BYTES = 1 << 20


@click.group()
def artifacts() -> None:
    """List and download the artifacts of a run."""


@artifacts.command("list", epilog=RUN_HELP)
@options.run
@options.as_json
def list_(*, run_text: str, as_json: bool) -> None:
    """List a run's artifacts with their sizes, and until when they are kept."""
    client = connect()
    found = _artifacts(client, find_run(client, run_text)["run_id"])
    if as_json:
        print_json(found)
        return
    columns = (
        Column("NAME"), Column("SIZE", right=True), Column("FILES", right=True), Column("JOB"),
        Column("CREATED"), Column("KEPT UNTIL"), Column("SHA256"),
    )  # fmt: skip
    print_table(columns, [_row(item) for item in found], empty="The run has no artifacts.")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    kept = instant(item["expires_at"]) if item["expires_at"] else "for ever"
    return (
        clean(item["name"]),
        size(item["size_bytes"]),
        str(item["files"]),
        clean(item["job"]),
        instant(item["created_at"]),
        "expired" if item["expired"] else kept,
        item["sha256"][:12],
    )


def size(size_bytes: int) -> str:
    """Return a size for people: 812 B, 4.7 KiB, 1.2 GiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


@artifacts.command("download", epilog=RUN_HELP)
@options.run
@click.argument("name", required=False)
@click.option(
    "--output",
    "-o",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Where to; made if it is not there. Default: here.",
)
@click.option("--zip", "as_zip", is_flag=True, help="Keep the zip NAME.zip; unpack nothing.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def download(*, run_text: str, name: str | None, folder: Path, as_zip: bool, force: bool) -> None:
    """Download the artifact NAME of a run into DIR; without NAME all of them, a folder each.

    Each is compared with its sha256 before anything is written. A file that would leave its
    folder is refused, and so is one that is there, unless --force.
    """
    client = connect()
    run = find_run(client, run_text)
    for item in _wanted(_artifacts(client, run["run_id"]), name, run["run_id"]):
        target = folder if name or as_zip else folder / _folder_name(item["name"])
        with tempfile.TemporaryDirectory(prefix="tailrace-") as scratch:
            path = Path(scratch, "artifact.zip")
            _fetch(client, item, path)
            if as_zip:
                place = _place(target, f"{_folder_name(item['name'])}.zip", force=force)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, place)
                count = 1
            else:
                count = unpack(path, target, force=force)
        files = "1 file" if count == 1 else f"{count} files"
        click.echo(f"{clean(item['name'])}: {files} in {target} ({size(item['size_bytes'])})")


def _artifacts(client: Client, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/runs/{part(run_id)}/artifacts")["items"]
    return found


def _wanted(found: list[dict[str, Any]], name: str | None, run_id: str) -> list[dict[str, Any]]:
    if name is not None:
        return [item for item in found if item["name"] == name] or _none(found, name, run_id)
    living = [item for item in found if not item["expired"]]
    if not living:
        expired = f"; {len(found)} expired" if found else ""
        raise NotFoundError(f"run {run_id} has no artifacts{expired}")
    for item in found:
        if item["expired"]:
            click.echo(f"{clean(item['name'])}: expired, left out", err=True)
    return living


def _none(found: list[dict[str, Any]], name: str, run_id: str) -> list[dict[str, Any]]:
    there = ", ".join(clean(item["name"]) for item in found) or "none"
    raise NotFoundError(f"run {run_id} has no artifact {name!r}; it has: {there}")


def _fetch(client: Client, item: dict[str, Any], path: Path) -> None:
    """Write an artifact's zip to `path`. CliError when it is not what was uploaded."""
    whole, received = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in client.text(f"/artifacts/{part(item['artifact_id'])}/zip"):
            whole.update(chunk)
            received += len(chunk)
            file.write(chunk)
    if whole.hexdigest() != item["sha256"]:
        all_came = received == item["size_bytes"]
        why = "its sha256 differs" if all_came else f"{received} of {item['size_bytes']} bytes came"
        raise CliError(
            f"{item['name']!r} is not what was uploaded: {why}. Nothing was written; try again, "
            "and look into the log of the service `api` if it stays so"
        )


def unpack(path: Path, folder: Path, *, force: bool) -> int:
    """Unpack a zip into a folder; returns how many files. CliError before anything is written.

    A member may not leave the folder, be a link or a device, or replace what is there.
    """
    try:
        with zipfile.ZipFile(path) as source:
            members = [item for item in source.infolist() if not item.is_dir()]
            places = [_place_of(folder, item, force=force) for item in members]
            for item, place in zip(members, places, strict=True):
                place.parent.mkdir(parents=True, exist_ok=True)
                _inside(folder, place)
                _write(source, item, place)
            folder.mkdir(parents=True, exist_ok=True)
            return len(members)
    except zipfile.BadZipFile as error:
        raise CliError(
            f"the artifact is no zip that can be read: {error}; take it with --zip"
        ) from error


def _place_of(folder: Path, item: zipfile.ZipInfo, *, force: bool) -> Path:
    mode = item.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise CliError(f"the artifact's {item.filename!r} is no plain file; take it with --zip")
    return _place(folder, item.filename, force=force)


def _place(folder: Path, name: str, *, force: bool) -> Path:
    """Return where a file of a name goes. CliError when that is outside, or taken."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise CliError(f"the artifact's {name!r} would leave {folder}; take it with --zip")
    place = folder.joinpath(*parts)
    _inside(folder, place)
    if place.is_symlink() or (place.exists() and (place.is_dir() or not force)):
        raise CliError(f"{place} is there already: name another folder with -o, or --force",
                       Exit.USAGE)  # fmt: skip
    return place


def _inside(folder: Path, place: Path) -> None:
    """Refuse a place that a link in the folder leads out of it."""
    if not place.parent.resolve().is_relative_to(folder.resolve()):
        raise CliError(f"{place} leads out of {folder} by a link that is there; remove the link")


def _write(source: zipfile.ZipFile, item: zipfile.ZipInfo, place: Path) -> None:
    beside = place.with_name(f".{place.name[:80]}.{SystemClock().steady_ms()}.part")
    try:
        with source.open(item) as file, beside.open("xb") as target:
            shutil.copyfileobj(file, target, _COPY_BYTES)
        beside.chmod(0o755 if (item.external_attr >> 16) & 0o100 else 0o644)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def _folder_name(name: str) -> str:
    """Return an artifact's name as a folder's. CliError for one that is another place."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise CliError(f"the artifact {name!r} can't be a folder: download it by its name, with -o")
    return name

"""`actions/cache`, `actions/cache/restore` and `actions/cache/save`, built in.

A cache is a zstd-compressed tar whose members lie below the name of a place (`workspace`, `home`,
…), since every attempt has folders of its own.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import zstandard

from runner.actions import ActionContext, ActionError
from runner.actions.files import (
    Patterns,
    given_inputs,
    is_true,
    list_files,
    members,
    pack,
    read_patterns,
    scratch_file,
    unpack,
    warn_unexpected,
)
from runner.depot import DepotError, Entry, Saved, load, store, unique
from runner.steps import Hook, StepEnd
from schemas.workflow.expressions.values import Value, to_string

KEY_CHARACTERS_MAX = 512
KEYS_MAX = 10
_FORMAT = "tailrace-cache-1"
_ELSEWHERE = "machine"
_INPUTS = frozenset(
    {
        "path", "key", "restore-keys", "lookup-only", "fail-on-cache-miss", "save-always",
        "enablecrossosarchive", "upload-chunk-size",
    }
)  # fmt: skip


class Cache:
    """Restores, and saves after the job when the key was not there."""

    def run(self, context: ActionContext) -> StepEnd:
        """Restore now, ask for saving."""
        end = RestoreCache().run(context)
        given = given_inputs(context)
        if end.outputs.get("cache-hit") == "true":
            return end
        step = context.step
        condition = "always()" if is_true(given.get("save-always")) else "success()"
        hook = Hook(
            name=f"Post {step.name}",
            condition=condition,
            payload=SaveCache(dict(step.inputs)),
            key=step.key,
            step_id=step.id,
            own=step.own,
        )
        return StepEnd(end.outcome, exit_code=0, outputs=end.outputs, posts=(hook,))


class RestoreCache:
    """Restores the cache of a key, or the newest that begins with one of `restore-keys`."""

    def run(self, context: ActionContext) -> StepEnd:
        """Restore; a cache that can't be had is none, for a job must run without as well."""
        warn_unexpected(context, _INPUTS)
        given = given_inputs(context)
        key, patterns = _wanted(context, given)
        more = unique(line.strip() for line in given.get("restore-keys", "").split("\n"))
        keys = unique((key, *more))
        if len(keys) > KEYS_MAX:
            raise ActionError(f"a cache has {KEYS_MAX} keys at most", "user.bad_input")
        outputs = {"cache-primary-key": key, "cache-hit": ""}
        try:
            found = context.depot.find_cache(
                keys, version=_version(given), scopes=scopes(context.github)
            )
            if found is not None and not is_true(given.get("lookup-only")):
                _restore(context, found, patterns)
        except DepotError as error:
            context.say(f"##[warning]The cache can't be restored: {error}")
            found = None
        if found is None:
            if is_true(given.get("fail-on-cache-miss")):
                raise ActionError(f"there is no cache with the key {key!r}", "user.cache_miss")
            context.say(f"Cache not found for input keys: {', '.join(keys)}")
            return StepEnd("success", exit_code=0, outputs=outputs)
        hit = found.name == key
        done = "found and can be restored" if is_true(given.get("lookup-only")) else "restored"
        context.say(f"Cache {done} from key: {found.name}")
        outputs |= {"cache-hit": "true" if hit else "false", "cache-matched-key": found.name}
        return StepEnd("success", exit_code=0, outputs=outputs)


class SaveCache:
    """Saves files under a key; a key that is taken stays as it is."""

    def __init__(self, inputs: Mapping[str, str] | None = None) -> None:
        """Save by `inputs`, or by those of the step itself."""
        self._inputs = inputs

    def run(self, context: ActionContext) -> StepEnd:
        """Save; failing to is a warning."""
        given = given_inputs(context)
        if self._inputs is not None:
            given = {name.lower(): value.strip() for name, value in self._inputs.items()}
        else:
            warn_unexpected(context, _INPUTS)
        key, patterns = _wanted(context, given)
        try:
            saved = _save(context, key, patterns, given)
        except DepotError as error:
            context.say(f"##[warning]The cache can't be saved: {error}")
        else:
            said = f"Cache saved with key: {key}" if saved.saved else f"Cache {key} is kept already"
            context.say(said)
            if saved.note:
                context.say(saved.note)
        return StepEnd("success", exit_code=0)


def scopes(github: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the refs whose caches a job reads: its own, its base, the default branch."""
    event = github.get("event")
    repository = event.get("repository") if isinstance(event, dict) else None
    default = repository.get("default_branch") if isinstance(repository, dict) else None
    base = to_string(github.get("base_ref") or "")
    return unique(
        (
            to_string(github.get("ref") or ""),
            f"refs/heads/{base}" if base else "",
            f"refs/heads/{to_string(default)}" if default else "",
        )
    )


def _wanted(context: ActionContext, given: Mapping[str, str]) -> tuple[str, Patterns]:
    places = context.folders.places
    patterns = read_patterns(given.get("path", ""), workspace=places.workspace, home=places.home)
    key = given.get("key", "")
    if not patterns.texts or not key:
        raise ActionError("a cache needs the inputs `path` and `key`", "user.bad_input")
    if "," in key or len(key) > KEY_CHARACTERS_MAX:
        raise ActionError(
            f"the key {key[:80]!r} has a comma or more than {KEY_CHARACTERS_MAX} characters",
            "user.bad_input",
        )
    return key, patterns


def _version(given: Mapping[str, str]) -> str:
    """Return what caches must have in common beside the key: the paths, as they are written."""
    paths = [line.strip() for line in given.get("path", "").split("\n") if line.strip()]
    return hashlib.sha256("\n".join((_FORMAT, *paths)).encode()).hexdigest()


def _places(context: ActionContext) -> dict[str, str]:
    places = context.folders.places
    return {
        "workspace": places.workspace,
        "home": places.home,
        "temp": places.temp,
        "tmp": places.tmp,
        "tools": places.tool_cache,
        _ELSEWHERE: "/",
    }


# --------------------------------------------------------------------------- saving


def _save(context: ActionContext, key: str, patterns: Patterns, given: Mapping[str, str]) -> Saved:
    scope = scopes(context.github)[:1] or ("",)
    files = patterns.select(list_files(context, patterns.roots, links=True))
    if not files:
        context.say("##[warning]There is nothing to cache: the paths do not exist")
        return Saved(saved=False)
    by_place: dict[str, list[str]] = {}
    places = _places(context)
    for file in files:
        place, name = place_of(file, places)
        by_place.setdefault(place, []).append(name)
    count = 0
    with scratch_file(context, "cache") as path:
        with (
            path.open("xb") as target_file,
            zstandard.ZstdCompressor(level=3).stream_writer(target_file) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as target,
        ):
            for place, names in by_place.items():
                count += pack(context, places[place], names, _copier(target, place), links=True)
        with path.open("rb") as stored:
            size, sha256, pieces = store(context.depot, stored, context.check)
    entry = Entry(name=key, size_bytes=size, sha256=sha256, pieces=pieces, files=count)
    return context.depot.save_cache(entry, version=_version(given), scope=scope[0])


def place_of(path: str, places: Mapping[str, str]) -> tuple[str, str]:
    """Return the place that an absolute path lies in, and its name there."""
    for place, folder in places.items():
        if path == folder or path.startswith(f"{folder.rstrip('/')}/"):
            return place, posixpath.relpath(path, folder)
    raise ActionError(f"{path} is no absolute path", "user.bad_input")


def _copier(target: tarfile.TarFile, place: str) -> Callable[[BinaryIO], int]:
    def copy(stream: BinaryIO) -> int:
        count = 0
        for archive, member in members(stream, links=True):
            member.name = posixpath.normpath(f"{place}/{member.name}")
            if member.islnk():
                member.linkname = f"{place}/{member.linkname}"
            _add(target, archive, member)
            count += not member.isdir()
        return count

    return copy


def _add(target: tarfile.TarFile, source: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    member.pax_headers = {}
    if member.isreg():
        target.addfile(member, source.extractfile(member))
    else:
        target.addfile(member)


# --------------------------------------------------------------------------- restoring


def _restore(context: ActionContext, entry: Entry, patterns: Patterns) -> None:
    places = _places(context)
    used = unique(place_of(root, places)[0] for root in patterns.roots)
    with scratch_file(context, "cache") as path:
        load(context.depot, entry, path, context.check)
        for place in used:
            unpack(context, places[place], _filler(path, place))


def _filler(path: Path, place: str) -> Callable[[BinaryIO], None]:
    prefix = f"{place}/"

    def fill(stream: BinaryIO) -> None:
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as plain,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as target,
        ):
            for archive, member in members(plain, links=True):
                if not member.name.startswith(prefix):
                    continue
                member.name = member.name.removeprefix(prefix)
                if member.islnk():
                    member.linkname = member.linkname.removeprefix(prefix)
                member.uid, member.gid = os.getuid(), os.getgid()
                _add(target, archive, member)

    return fill

"""Actions of the workspace: `uses: ./path`.

The runner may be root and the job owns the workspace, so that no link in it is followed but by
its resolved name, and never out of the workspace.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runner.actions import ActionError, Source
from runner.folders import JobFolders
from schemas.workflow.action_file import FILE_NAMES, ActionPlan, read_action
from schemas.workflow.errors import WorkflowError
from schemas.workflow.reader import BYTES_MAX

DOCKERFILES = ("Dockerfile", "dockerfile")


def read_local(uses: str, folders: JobFolders) -> Source:
    """Return the action of a folder in the workspace. Raises ActionError."""
    workspace = folders.workspace
    folder = Path(os.path.normpath(workspace / uses.replace("\\", "/")))
    if not folder.is_relative_to(workspace):
        raise ActionError(f"the action {uses!r} is not in the workspace", "user.bad_action")
    for name in FILE_NAMES:
        data = read_below(workspace, folder / name)
        if data is not None:
            shown = str((folder / name).relative_to(workspace))
            return Source(uses=uses, plan=read_plan(data, shown), folder=str(folder))
    if any(read_below(workspace, folder / name) is not None for name in DOCKERFILES):
        name = next(n for n in DOCKERFILES if read_below(workspace, folder / n) is not None)
        plan = ActionPlan(path=str(folder.relative_to(workspace)), using="docker", image=name)
        return Source(uses=uses, plan=plan, folder=str(folder))
    raise ActionError(
        f"there is no action in {uses!r}: expected {' or '.join(FILE_NAMES)} in that folder of "
        "the workspace; is there an actions/checkout step before this one?",
        "user.bad_action",
    )


def read_plan(data: bytes, shown: str) -> ActionPlan:
    """Return an action from the text of its file; `shown` names the file in messages."""
    try:
        return read_action(data, shown)
    except WorkflowError as error:
        raise ActionError(f"the action can't be used:\n{error}", "user.bad_action") from error


def read_below(root: Path, path: Path) -> bytes | None:
    """Return a file's content, one byte more than a workflow file may have at most.

    None when there is no such file within `root`. Every folder on the way is opened by itself and
    without following links, so that nobody can put one there meanwhile.
    """
    resolved = Path(os.path.realpath(path))
    real_root = Path(os.path.realpath(root))
    if not resolved.is_relative_to(real_root) or resolved == real_root:
        return None
    parts = resolved.relative_to(real_root).parts
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(real_root, flags | os.O_DIRECTORY)
        for part in parts[:-1]:
            fd = _replaced(fd, part, flags | os.O_DIRECTORY)
        fd = _replaced(fd, parts[-1], flags | os.O_NONBLOCK)
    except OSError:
        return None
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return file.read(BYTES_MAX + 1)


def _replaced(folder: int, name: str, flags: int) -> int:
    """Return what `name` in an open folder is, opened; the folder is closed."""
    try:
        return os.open(name, flags, dir_fd=folder)
    finally:
        os.close(folder)

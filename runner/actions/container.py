"""Actions that are containers: `docker://image` steps, and `using: docker` of a file.

Such a container lives as long as its process. It gets the job's folders at GitHub's fixed places,
the job's network, and the step's variables, but nothing of the machine's environment.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shlex
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from runner.actions import ActionContext, ActionError, Source, no_containers
from runner.actions.files import piped_out
from runner.actions.inputs import input_values, input_variables
from runner.executors.containers.engine import EngineError
from runner.executors.containers.job import JobContainers
from runner.executors.containers.place import (
    FILE_COMMANDS,
    HOME,
    TEMP,
    WORKFLOW,
    WORKSPACE,
    ContainerSetupError,
    job_mounts,
)
from runner.executors.containers.wanted import Spec
from runner.steps import Hook, StepEnd
from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions import evaluate_template

_DOCKER = "docker://"
_BUILD_FOLDER_BYTES_MAX = 4 << 30


class ContainerAction:
    """One use of an action that is a container."""

    def __init__(self, source: Source) -> None:
        """Run the image that `source` names or builds."""
        self._source = source

    def run(self, context: ActionContext) -> StepEnd:
        """Run its process; the one after the job's steps is asked for whatever becomes of it."""
        source, plan = self._source, self._source.plan
        if plan.pre and not source.repository:
            context.say(
                f"##[warning]`pre-entrypoint` of {source.uses} is not run: an action of the "
                "workspace is there only after checkout"
            )
        inputs = input_values(context, source)
        given = {name.lower(): value for name, value in context.step.inputs.items()}
        entrypoint = plan.entrypoint or given.get("entrypoint", "")
        end = ContainerStage(source, entrypoint, inputs).run(context)
        if not plan.post:
            return end
        step = context.step
        hook = Hook(
            name=f"Post {step.name}",
            condition=plan.post_if,
            payload=ContainerStage(source, plan.post, inputs),
            key=step.key,
            step_id=step.id,
            own=step.own,
        )
        return replace(end, posts=(hook,))


class ContainerStage:
    """One process of such an action: before the job's steps, in its place, or after them."""

    def __init__(
        self,
        source: Source,
        entrypoint: str,
        inputs: Mapping[str, str] | None,
        *,
        given: Mapping[str, str] | None = None,
    ) -> None:
        """Run `entrypoint` ("" for the image's); without `inputs`, with what was `given`."""
        self._source = source
        self._entrypoint = entrypoint
        self._inputs = inputs
        self._given = given or {}

    def run(self, context: ActionContext) -> StepEnd:
        """Run it."""
        source, containers = self._source, context.containers
        if containers is None:
            raise no_containers(source.uses)
        inputs = self._inputs
        if inputs is None:
            step = replace(context.step, inputs=self._given)
            inputs = input_values(replace(context, step=step), source)
        try:
            image = self._image(context, containers)
            return self._process(context, containers, image, inputs)
        except ContainerSetupError as error:
            raise ActionError(str(error), error.reason) from error
        except EngineError as error:
            raise ActionError(str(error), "infra.container") from error

    def _process(
        self,
        context: ActionContext,
        containers: JobContainers,
        image: str,
        inputs: Mapping[str, str],
    ) -> StepEnd:
        source = self._source
        name = containers.name_for("step")
        try:
            env = self._variables(context, inputs)
            with containers.variables(env, source.uses) as (words, through):
                command = containers.engine.argv(
                    "run", "--rm", "--name", name, "--workdir", WORKSPACE, "--pull", "never",
                    *containers.network_arguments(),
                    *containers.volume_arguments(job_mounts(context.folders), ()),
                    *(["--entrypoint", self._entrypoint] if self._entrypoint else []),
                    *words, *containers.common_arguments(), *containers.own_user_arguments(),
                    image, *self._arguments(inputs),
                )  # fmt: skip
                ending = context.run(
                    context.command(
                        argv=command,
                        env={**containers.engine.environment, **through},
                        cwd="/",
                        place="engine",
                    )
                )
            return context.ended(ending)
        finally:
            containers.discard(name)

    def _image(self, context: ActionContext, containers: JobContainers) -> str:
        image = self._source.plan.image
        if image.lower().startswith(_DOCKER):
            name = image[len(_DOCKER) :].strip()
            spec = Spec(name="", image=name)
            if not name or name.startswith("-") or any(map(str.isspace, name)):
                raise ActionError(f"{image!r} names no image", "user.bad_action")
            containers.pull(spec)
            return name
        return self._build(context, containers, image)

    def _build(self, context: ActionContext, containers: JobContainers, dockerfile: str) -> str:
        """Build the image once an attempt, from a copy that nobody can change meanwhile."""
        folder = self._source.folder
        mark = hashlib.sha256(f"{folder} {dockerfile}".encode()).hexdigest()[:12]
        tag, is_there = containers.image_for(mark)
        if is_there:
            return tag
        copy = context.folders.root / f".build-{mark}"
        copy.mkdir(mode=0o700)
        try:
            _copy(context, folder, copy)
            self._build_from(context, containers, copy, dockerfile, tag)
        finally:
            # the step may be tried again, and nobody else needs it
            shutil.rmtree(copy, ignore_errors=True)
        containers.built(mark)
        return tag

    def _build_from(
        self,
        context: ActionContext,
        containers: JobContainers,
        copy: Path,
        dockerfile: str,
        tag: str,
    ) -> None:
        path = Path(copy, posixpath.normpath(dockerfile))
        if not path.resolve().is_relative_to(copy.resolve()) or not path.is_file():
            raise ActionError(
                f"{self._source.plan.path}: there is no {dockerfile!r} in the action's folder",
                "user.bad_action",
            )
        command = containers.engine.argv(
            "build", *containers.labels(), "--tag", tag, "--file", str(path), str(copy)
        )
        own = containers.engine.environment
        ending = context.run(context.command(argv=command, env=own, cwd="/", place="engine"))
        if ending.timed_out:
            raise ActionError("the build ran longer than the step's limit", "user.step_timeout")
        if ending.code != 0:
            raise ActionError(
                f"the image of {self._source.uses} can't be built: exit code {ending.code}, the "
                "engine's words are above", "user.action_failed",
            )  # fmt: skip

    def _arguments(self, inputs: Mapping[str, str]) -> list[str]:
        """Return the arguments of the file, or those that the step gives as one text."""
        plan = self._source.plan
        if plan.args is not None:
            return [self._text(text, inputs, "args") for text in plan.args]
        given = {name.lower(): value for name, value in inputs.items()}.get("args", "")
        try:
            return shlex.split(given)
        except ValueError as error:
            raise ActionError(f"args can't be read: {error}", "user.bad_input") from error

    def _variables(self, context: ActionContext, inputs: Mapping[str, str]) -> dict[str, str]:
        source, folders = self._source, context.folders
        own = {
            name: self._text(text, inputs, f"env.{name}") for name, text in source.plan.env.items()
        }
        env = {
            **own,
            **context.bare_env,
            **input_variables(inputs),
            **{f"STATE_{name}": value for name, value in context.state.items()},
            "HOME": HOME, "GITHUB_WORKSPACE": WORKSPACE, "RUNNER_TEMP": TEMP,
        }  # fmt: skip
        if source.repository:
            env["GITHUB_ACTION_REPOSITORY"] = source.repository
            env["GITHUB_ACTION_REF"] = source.ref
        # the same file at the place where actions are used to find it
        for name, value in env.items():
            if name.startswith("GITHUB_") and value.startswith(f"{folders.files}/"):
                env[name] = f"{FILE_COMMANDS}/{posixpath.basename(value)}"
        env["GITHUB_EVENT_PATH"] = f"{WORKFLOW}/{posixpath.basename(folders.places.event_path)}"
        return env

    def _text(self, text: str, inputs: Mapping[str, str], where: str) -> str:
        try:
            return evaluate_template(text, {"inputs": dict(inputs)})
        except ExpressionError as error:
            message = f"{self._source.plan.path}: {where}: {error}"
            raise ActionError(message, "user.bad_expression") from error


def extract_within(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Unpack a member that is a file, a folder or a link within `target`. Raises ActionError.

    The job wrote the archive and the runner may be root. Python's own filter came with 3.11.4, so
    that the check is ours; nothing of a member's owner or special bits is kept.
    """
    root = os.path.realpath(target)
    place = os.path.realpath(os.path.join(root, member.name))  # noqa: PTH118 - resolved as a whole
    places = [place]
    if member.issym():
        places.append(os.path.realpath(os.path.join(os.path.dirname(place), member.linkname)))  # noqa: PTH118, PTH120
    elif member.islnk():
        places.append(os.path.realpath(os.path.join(root, member.linkname)))  # noqa: PTH118
    is_known = member.isreg() or member.isdir() or member.issym() or member.islnk()
    is_inside = all(found == root or found.startswith(f"{root}/") for found in places)
    if not is_known or not is_inside or member.name.startswith("/"):
        raise ActionError(
            f"the action's folder can't be built: {member.name!r} leads out of it, or is no file",
            "user.bad_action",
        )
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
    member.mode = 0o755 if member.isdir() else member.mode & 0o755
    more: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    try:
        archive.extract(member, root, **more)
    except (tarfile.TarError, OSError) as error:
        text = f"the action's folder can't be built: {member.name!r}: {error}"
        raise ActionError(text, "user.bad_action") from error


def _copy(context: ActionContext, folder: str, target: Path) -> None:
    """Copy an action's folder with the rights of the job's user; links out of it are refused."""

    def unpack(stream: BinaryIO) -> None:
        size = 0
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                size += member.size
                if size > _BUILD_FOLDER_BYTES_MAX:
                    raise ActionError("the action's folder is too large", "user.too_large")
                extract_within(archive, member, target)
        stream.read()

    _, ending = piped_out(context, ["tar", "-cf", "-", "--exclude=./.git", "."], folder, unpack)
    if ending.code != 0:
        raise ActionError("the action's folder can't be read whole", "user.bad_action")

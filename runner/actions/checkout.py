"""`actions/checkout`, built in: the runner reads the repository, the job's user gets the objects.

The job's user can't read a repository of root's, and must not see the credential. So the runner
brings its mirror up to date with the credential in git's environment, and the job's own git, as
the job's user, fetches from `git upload-pack` over a socket it was born with (`fd::`). No
credential is ever in an argv; with `persist-credentials` it is put into a file beside the
workspace that the repository's config includes, so that an artifact of the workspace never has it.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from runner.actions import ActionContext, ActionError
from runner.actions.files import given_inputs, is_true, warn_unexpected
from runner.gateway_client import Clone
from runner.mirrors import (
    MirrorError,
    Revision,
    credential_settings,
    revision_of,
    settings_environment,
)
from runner.pump import Ending
from runner.steps import StepEnd
from schemas.late import dataclass
from schemas.workflow.expressions.values import Value, to_string

_FD = 3
#: What can't be followed, and what to do instead.
_UNSUPPORTED = {
    "ssh-key": "the repository's own credential is used; register it with the repository",
    "lfs": "run `git lfs pull` in a step, with git-lfs on the runner's machine",
}
#: Understood, or without a meaning here: objects come from the runner's mirror, the workspace is
#: the job's own, and the token is the one that the repository was registered with.
_INPUTS = frozenset(
    {
        "repository", "ref", "token", "path", "clean", "fetch-depth", "fetch-tags", "submodules",
        "persist-credentials", "sparse-checkout", "sparse-checkout-cone-mode", "filter",
        "show-progress", "set-safe-directory", "ssh-known-hosts", "ssh-strict", "ssh-user",
        "github-server-url", "allow-unsafe-pr-checkout", *_UNSUPPORTED,
    }
)  # fmt: skip
_SUBMODULES = frozenset({"false", "true", "recursive"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The inputs of a checkout, read."""

    repository: str
    ref: str
    path: str
    depth: int
    tags: bool
    persist: bool
    submodules: str
    clean: bool
    sparse: tuple[str, ...] = ()
    cone: bool = True


class Checkout:
    """The action."""

    def run(self, context: ActionContext) -> StepEnd:
        """Check the wanted commit out."""
        warn_unexpected(context, _INPUTS)
        wanted = read_inputs(context)
        own = wanted.repository == ""
        clone = context.clone("" if own else wanted.repository)
        try:
            revision = _revision(context, wanted, clone, own=own)
            mirror = _mirror(context, wanted, clone, revision, own=own)
        except MirrorError as error:
            raise ActionError(_without_credential(str(error), clone), "infra.git") from error
        serving = context.mirrors.serve(mirror)
        try:
            end = self._in_workspace(context, wanted, clone, revision, serving.fd)
        finally:
            serving.close()
        return end

    def _in_workspace(
        self, context: ActionContext, wanted: Wanted, clone: Clone, revision: Revision, fd: int
    ) -> StepEnd:
        credentials = credential_settings(clone)
        script = checkout_script(wanted, clone, revision)
        if wanted.persist and credentials:
            script += _persist(context, credentials)
        env = {
            **context.env,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **settings_environment({"protocol.version": "2", "advice.detachedHead": "false",
                                    "init.defaultBranch": "main", "core.hooksPath": "/dev/null"}),
        }  # fmt: skip
        ending = context.run(
            context.command(
                argv=["sh", "-e", "-c", script],
                env=env,
                cwd=str(context.folders.workspace),
                fds={_FD: fd},
            )
        )
        if ending.code == 0 and wanted.submodules != "false":
            ending = self._submodules(context, wanted, env, credentials)
        if ending.timed_out:
            raise ActionError("the checkout ran longer than its limit", "user.step_timeout")
        if ending.code != 0:
            raise ActionError(
                f"git failed with exit code {ending.code}; its words are above", "infra.git"
            )
        own_ref = _text(context.github, "ref") if wanted.repository == "" else ""
        outputs = {"commit": revision.sha, "ref": wanted.ref or own_ref or revision.full_ref}
        return StepEnd("success", exit_code=0, outputs=outputs)

    def _submodules(
        self,
        context: ActionContext,
        wanted: Wanted,
        env: dict[str, str],
        credentials: dict[str, str],
    ) -> Ending:
        """Bring submodules in with the rights of the job's user.

        Their git starts further ones, which read no settings from the environment but a file.
        """
        settings = {"safe.directory": "*", "protocol.file.allow": "always", **credentials}
        path = context.folders.files / f"git-submodules-{context.serial}.config"
        context.folders.write(path, config_text(settings).encode())
        try:
            return context.run(
                context.command(
                    argv=["sh", "-e", "-c", submodule_script(wanted)],
                    env={**env, "GIT_CONFIG_GLOBAL": str(path)},
                    cwd=str(context.folders.workspace),
                )
            )
        finally:
            path.unlink(missing_ok=True)


def read_inputs(context: ActionContext) -> Wanted:
    """Return the inputs. Raises ActionError for one that can't be followed."""
    given = given_inputs(context)
    for name, instead in _UNSUPPORTED.items():
        if given.get(name, "").lower() not in ("", "false"):
            raise ActionError(
                f"the built-in checkout does not do `{name}`: leave it out; {instead}",
                "user.unsupported_input",
            )
    server = given.get("github-server-url", "").rstrip("/")
    if server not in ("", _text(context.github, "server_url")):
        raise ActionError(
            f"the built-in checkout reads this repository's server only, not {server}: leave "
            "`github-server-url` out, or clone with git in a step",
            "user.unsupported_input",
        )
    depth = given.get("fetch-depth") or "1"
    if not depth.lstrip("-").isdigit():
        raise ActionError(f"fetch-depth is {depth!r}; expected a whole number", "user.bad_input")
    submodules = (given.get("submodules") or "false").lower()
    if submodules not in _SUBMODULES:
        raise ActionError(
            f"submodules is {submodules!r}; expected true, false or recursive", "user.bad_input"
        )
    repository = given.get("repository", "")
    return Wanted(
        repository="" if repository == _text(context.github, "repository") else repository,
        ref=given.get("ref", ""),
        path=_path(given.get("path", ""), str(context.folders.workspace)),
        depth=max(0, int(depth)),
        tags=is_true(given.get("fetch-tags")),
        persist=is_true(given.get("persist-credentials") or "true"),
        submodules=submodules,
        clean=is_true(given.get("clean") or "true"),
        sparse=tuple(
            line.strip() for line in given.get("sparse-checkout", "").split("\n") if line.strip()
        ),
        cone=is_true(given.get("sparse-checkout-cone-mode") or "true"),
    )


def _path(text: str, workspace: str) -> str:
    """Return the folder relative to the workspace. Raises ActionError for one outside of it."""
    relative = posixpath.relpath(posixpath.join(workspace, text or "."), workspace)
    if relative == ".." or relative.startswith("../"):
        raise ActionError(f"path {text!r} is not below the workspace", "user.bad_input")
    return relative


def _revision(context: ActionContext, wanted: Wanted, clone: Clone, *, own: bool) -> Revision:
    """Return the commit: of the run's own event unless another ref or repository is asked for."""
    ref, sha = _text(context.github, "ref"), _text(context.github, "sha")
    if own and wanted.ref in ("", ref) and sha:
        return revision_of(ref, sha)
    if own and wanted.ref == sha and sha:
        return Revision(sha, "sha", sha)
    return context.mirrors.resolve(clone, wanted.ref)


def _mirror(
    context: ActionContext, wanted: Wanted, clone: Clone, revision: Revision, *, own: bool
) -> Path:
    """Return a mirror with the commit; that of a pull request is made, for no forge has it."""
    everything = wanted.depth == 0 or wanted.tags
    sides = _merged_sides(context.github) if own else None
    if sides is None or revision.sha != _text(context.github, "sha"):
        return context.mirrors.prepare(clone, revision.sha, everything=everything)
    base, head = sides
    if everything:
        context.mirrors.prepare(clone, base, everything=True)
    return context.mirrors.prepare_merge(clone, revision.sha, base, head)


def _merged_sides(github: Mapping[str, Value]) -> tuple[str, str] | None:
    """Return (base, head) of the pull request whose merge the run is about; None for others."""
    ref, event = _text(github, "ref"), github.get("event")
    pull = event.get("pull_request") if isinstance(event, dict) else None
    if not (ref.startswith("refs/pull/") and ref.endswith("/merge") and isinstance(pull, dict)):
        return None
    base, head = (_text(pull.get(side) or {}, "sha") for side in ("base", "head"))
    return (base, head) if base and head else None


def checkout_script(wanted: Wanted, clone: Clone, revision: Revision) -> str:
    """Return what the job's shell does in the workspace; everything in it is quoted."""
    ref, checkout = _target(revision)
    depth = f"--depth={wanted.depth}" if wanted.depth else ""
    tags = "--tags" if wanted.tags else "--no-tags"
    refspecs = [revision.sha]
    if wanted.depth == 0:
        refspecs += ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
    quoted = " ".join(map(shlex.quote, refspecs))
    url = shlex.quote(public_url(clone.url))
    clean = "git clean -q -ffdx && git reset -q --hard" if wanted.clean else ":"
    # the commit has no ref of its own on the other side: it is named here, not in the refspec
    name = f"git update-ref {shlex.quote(ref)} {shlex.quote(revision.sha)}" if ref else ":"
    upstream = f"origin/{revision.name}" if revision.kind == "branch" else ""
    track = f"git branch -q --set-upstream-to={shlex.quote(upstream)}" if upstream else ":"
    path = shlex.quote(wanted.path)
    return f"""
[ -d {path} ] || rm -f {path}
mkdir -p {path} && cd {path}
reuse() {{
[ -d .git ] && [ "$(git config --local --get remote.origin.url)" = {url} ] &&
rm -f .git/index.lock .git/shallow.lock && git checkout -q --detach &&
git for-each-ref --format='delete %(refname)' refs/heads refs/remotes/origin |
git update-ref --stdin && {clean}
}}
if ! reuse 2>/dev/null; then
find . -mindepth 1 -maxdepth 1 -exec rm -rf {{}} +
git init -q . && git remote add origin {url}
fi
git config --local gc.auto 0
git fetch -q --force {tags} --no-recurse-submodules {depth} --update-head-ok fd::{_FD} {quoted}
{name}
{_sparse(wanted)}
git checkout -q --force {checkout}
{track} || :
echo "HEAD is now at $(git log -1 --format='%h %s')"
"""


def _sparse(wanted: Wanted) -> str:
    """Return what leaves only the wanted part of the tree, or brings back all of it."""
    if not wanted.sparse:
        is_sparse = '[ "$(git config --get core.sparseCheckout)" = true ]'
        return f"if {is_sparse}; then git sparse-checkout disable; fi"
    mode = "--cone" if wanted.cone else "--no-cone"
    return f"git sparse-checkout set {mode} {' '.join(map(shlex.quote, wanted.sparse))}"


def _target(revision: Revision) -> tuple[str, str]:
    """Return the ref that shall name the commit, and what `git checkout` is told."""
    name = revision.name
    match revision.kind:
        case "branch":
            ref = f"refs/remotes/origin/{name}"
            return ref, f"-B {shlex.quote(name)} {shlex.quote(ref)}"
        case "tag":
            return f"refs/tags/{name}", shlex.quote(f"refs/tags/{name}")
        case "pull":
            return f"refs/remotes/pull/{name}", shlex.quote(f"refs/remotes/pull/{name}")
        case _:
            return "", f"--detach {shlex.quote(revision.sha)}"


def submodule_script(wanted: Wanted) -> str:
    """Return how submodules are brought in, by the job's user with its own rights."""
    recursive = "--recursive" if wanted.submodules == "recursive" else ""
    depth = f"--depth={wanted.depth}" if wanted.depth else ""
    return f"""
cd {shlex.quote(wanted.path)}
git submodule -q sync {recursive}
git submodule -q update --init --force {depth} {recursive}
"""


def _persist(context: ActionContext, credentials: dict[str, str]) -> str:
    """Write the credential beside the workspace; returns what makes the repository use it."""
    path = context.folders.files / f"git-credentials-{context.serial}.config"
    context.folders.write(path, config_text(credentials).encode())
    return f"git config --local include.path {shlex.quote(str(path))}\n"


def config_text(settings: dict[str, str]) -> str:
    """Return settings as a git config file."""
    lines = []
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        kind, _, subsection = section.partition(".")
        head = f'[{kind} "{subsection}"]' if subsection else f"[{kind}]"
        lines += [head, f"\t{name} = {value}"]
    return "\n".join(lines) + "\n"


def public_url(url: str) -> str:
    """Return a clone URL without the user and password that may be written in it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _without_credential(text: str, clone: Clone) -> str:
    return text.replace(clone.url, public_url(clone.url))


def _text(context: object, name: str) -> str:
    value: Value = context.get(name) if hasattr(context, "get") else None
    return to_string(value) if value is not None else ""

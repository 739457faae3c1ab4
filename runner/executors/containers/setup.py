"""What an attempt has of the engine's, from its plan: the only wiring of the containers' parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from infra.clock import Clock
from runner.executors import Command
from runner.executors.containers.engine import Engine, EngineError
from runner.executors.containers.job import JobContainers
from runner.executors.containers.place import ContainerSetupError, ContainerWorkplace
from runner.executors.containers.wanted import read_wanted
from runner.executors.host import HostWorkplace
from runner.folders import JobFolders, Seat
from runner.guards import Guard
from runner.pump import Ending, Pump
from runner.steps import StepMachine
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import JobPlan


def workplace_for(
    plan: JobPlan, engine: Engine | None, seat: Seat, folders: JobFolders, guard: Guard, pump: Pump
) -> HostWorkplace:
    """Return the place of a job: in a container where it asks for one. ContainerSetupError."""
    if engine is None or plan.container is None:
        return HostWorkplace(seat, folders, guard, pump)
    return ContainerWorkplace(seat, folders, guard, pump, engine)


def containers_for(
    engine: Engine | None,
    workplace: HostWorkplace,
    *,
    mark: str,
    key: str,
    clock: Clock,
    say: Callable[[str], None],
    is_ending: Callable[[], bool],
) -> JobContainers | None:
    """Return what makes an attempt's containers; None on a runner without an engine."""
    if engine is None:
        return None

    def run(argv: list[str], env: Mapping[str, str]) -> Ending:
        command = Command(
            argv=argv, env={**engine.environment, **env}, cwd="/", step=0,
            on_command=lambda line: line, place="engine",
        )  # fmt: skip
        workplace.start(command)
        return workplace.wait()

    return JobContainers(
        engine, workplace.folders,
        mark=mark, key=key, clock=clock, say=say, run=run, is_ending=is_ending,
        at_end=workplace.at_end,
    )  # fmt: skip


def bring_up(
    plan: JobPlan,
    machine: StepMachine,
    workplace: HostWorkplace,
    containers: JobContainers | None,
) -> dict[str, Value]:
    """Make what a job wants and return its part of the `job` context.

    Raises ContainerSetupError, OptionError or ExpressionError.
    """
    if containers is None:
        return {}
    engine, folders = containers.engine, workplace.folders
    uid = None if folders.user is None else folders.user.uid
    # without a container of their own steps run beside what a service leaves in a folder
    is_safe = plan.container is not None or engine.rootless or engine.maps_users(uid)
    own = tuple(map(str, folders.parts())) if is_safe else ()
    contexts: dict[str, Value] = {**machine.contexts, "env": dict(machine.env)}
    wanted = read_wanted(plan, contexts, own, any_options=engine.any_options)
    if not wanted:
        return {}
    try:
        containers.make(wanted, workplace if isinstance(workplace, ContainerWorkplace) else None)
        return containers.context()
    except EngineError as error:
        raise ContainerSetupError(str(error), "infra.container") from error


def take_down(workplace: HostWorkplace, containers: JobContainers | None) -> None:
    """Remove all that was made; may be repeated."""
    if isinstance(workplace, ContainerWorkplace):
        workplace.leave()
    if containers is not None:
        containers.remove()

"""A run, from its spec to its record."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ipbench import methods
from ipbench.machine import distributed
from ipbench.machine.provenance import provenance
from ipbench.planning.numerics import numerics
from ipbench.runs.building import build_net, content, initial_values, of_the_model, open_data, tell_notes
from ipbench.runs.controls import Source
from ipbench.runs.effective import describe_effective
from ipbench.runs.environment import Environment, begin_anew, versions
from ipbench.runs.external import external_masks
from ipbench.runs.latency import side_by_side
from ipbench.runs.outcome import complete, describe
from ipbench.runs.records import end_path, finished, record_path, state_path
from ipbench.runs.stages import Given, execute_stages
from ipbench.runs.state import End, State, read_end, write_end
from ipbench.runs.trials import check_share, check_strict
from ipbench.sparse import measure
from ipbench.sparse.selection import Impossible, NotFinite
from ipbench.spec import Run, canonical_json
from ipbench.store import without_nan, write_json


def execute(
    run: Run,
    results: Path,
    environment: Environment,
    *,
    keep: bool = False,
    on_epoch: Callable[[int, int], None] = lambda epoch, epochs: None,
) -> dict[str, Any]:
    """Train one run and write its record; a finished one is read, an interrupted one continued.

    Args:
        run: what to train. If it continues another run, that one is executed first, unless it is finished.
        results: the experiment's folder.
        environment: where and how.
        keep: keep the end of the run for others that continue it.
        on_epoch: called with the epochs finished and all epochs, for a progress bar.

    Returns:
        The record (docs/design.md lists its keys).
    """

    def found() -> dict[str, Any] | None:
        if record := finished(results, run, environment, keep=keep):
            state_path(results, run).unlink(missing_ok=True)  # left by a process that was killed before it came to this
        return record

    record: dict[str, Any] | None = distributed.by_first(found)
    if record:
        return record
    parent, source = next(iter(methods.line(run)), None), methods.source_of(run)
    of_source, before = (
        _Needed(other, execute(other, results, environment, keep=True, on_epoch=on_epoch)) if other else None
        for other in (source, parent)
    )
    work = _Work(run, results, environment, before, of_source)
    record = work.record(*work.result(keep, on_epoch))

    def write() -> dict[str, Any]:
        write_json(record_path(results, run), record)
        work.state.path.unlink(missing_ok=True)
        return record

    written: dict[str, Any] = distributed.by_first(write)
    return written


class _Needed(NamedTuple):
    """A run that another one needs, and its record."""

    run: Run
    record: Mapping[str, Any]


class _Work:
    """A run while it is trained: its net, its state, and what it has cost."""

    def __init__(
        self,
        run: Run,
        results: Path,
        environment: Environment,
        before: _Needed | None,
        source: _Needed | None,
    ) -> None:
        """Begin as a new process does, open the data and build the net.

        Args:
            run: that is trained.
            results: the experiment's folder.
            environment: where and how.
            before: what it continues.
            source: what it is a control of.
        """
        self.run, self.results, self.environment, self.before, self.source = run, results, environment, before, source
        self.begin = time.perf_counter(), time.process_time()
        begin_anew(run, environment)
        with distributed.together():
            self.data = open_data(run, environment)
            tell_notes(self.data)
            self.there = content(run, environment)
            self.net = build_net(run, self.data, environment)
            check_share(self.net, self.data)
            check_strict(self.net, self.data)
        measure.begin_peak(environment.device)  # of this run alone, though a job trains several
        self.state = State(state_path(results, run), run, {**self.there, **versions(environment)})

    def spent(self) -> tuple[float, float]:
        """Seconds of the clock and of the processor, of this process."""
        return time.perf_counter() - self.begin[0], time.process_time() - self.begin[1]

    def save(self) -> None:
        """Write the state."""
        spent = self.spent()
        distributed.by_first(lambda: self.state.save(self.net, *spent))

    def start(self) -> End:
        """Where the run begins: the end of the one that it continues."""
        return self.end_of(self.before.run) if self.before else End({}, {})

    def taken(self) -> Source:
        """What the run takes of the one that it is a control of."""
        assert self.source is not None
        return Source(self.source.run, self.source.record, self.end_of(self.source.run))

    def end_of(self, run: Run) -> End:
        """Where another run ended."""
        return read_end(end_path(self.results, run), run, self.there)

    def require(self) -> None:
        """Check that the runs which this one needs are done.

        Raises:
            Impossible: one of them is impossible.
            NotFinite: one has diverged.
        """
        for needed, which in ((self.before, "continues"), (self.source, "is a control of")):
            if needed and needed.record["status"] != "done":
                record = needed.record
                raise {"impossible": Impossible, "diverged": NotFinite}[record["status"]](
                    f"the run that this one {which} ({record['cell']}) is {record['status']}: {record['reason']}"
                )

    def result(self, keep: bool, on_epoch: Callable[[int, int], None]) -> tuple[str, str | None, dict[str, Any]]:
        """Train; status, reason and outcome of the record."""
        net, data, state = self.net, self.data, self.state
        try:
            self.require()
            state.load(net)
            given = Given(
                fresh=lambda: build_net(self.run, data, self.environment),
                start=self.start,
                external=lambda net: external_masks(net, self.results, self.there),
                source=self.taken,
                small=lambda net: initial_values(net, data),
            )
            execute_stages(net, data, state, given, save=self.save, on_epoch=on_epoch)
            outcome = complete(net, data, state)
            if keep:
                self.keep(outcome)
        except Impossible as error:
            return "impossible", str(error), {}
        except NotFinite as error:
            return "diverged", str(error), describe(net, data, state)
        return "done", None, outcome

    def keep(self, outcome: Mapping[str, Any]) -> None:
        """Write where the run ended, for others that continue it."""
        facts = {"training_flops": outcome["training_flops"]}
        if math.isfinite(self.state.epochs):
            facts |= {"epochs": self.state.epochs}
            facts |= {name: self.state.facts.get(name, 0) for name in ("inherited_epochs", "inherited_flops")}
        facts |= {"faded": self.net.faded} if self.run.off == "decayed" else {}
        end = End(self.net.tensors(), self.net.masks, self.state.point, facts, self.net.structure)
        distributed.by_first(lambda: write_end(end_path(self.results, self.run), self.run, end, self.there))

    def cost(self, status: str) -> dict[str, Any]:
        """What the run has cost: also what choosing took where a method chooses by more than a ranking, and of a net
        whose channels were cut its latency, beside the dense net's.
        """
        wall, processor = self.spent()
        cost: dict[str, Any] = {
            "wall_seconds": round(self.state.seconds + wall, 3),
            "cpu_seconds": round(self.state.cpu_seconds + processor, 3),
            "peak_memory_bytes": measure.peak_memory(self.environment.device),
        }
        if any(isinstance(stage, methods.Choose) for stage in methods.get(self.run.method).stages_of(self.run)):
            cost["choosing_seconds"] = round(self.state.choosing, 3)
        if status == "done" and self.net.structure:
            dense = build_net(self.run, self.data, self.environment)
            cost["latency"] = side_by_side(dense, self.net, self.data)
        return cost

    def record(self, status: str, reason: str | None, outcome: dict[str, Any]) -> dict[str, Any]:
        """The record of the run."""
        run, environment, state = self.run, self.environment, self.state
        before = self.before.record if self.before else None
        cost = self.cost(status)
        return {
            "id": run.id,
            "cell": run.cell,
            "run": run.to_json(),
            "status": status,
            "reason": reason,
            "outcome": (outcome := without_nan(outcome)),
            "outcome_sha256": hashlib.sha256(canonical_json(outcome).encode()).hexdigest(),
            **({"activity": vars(state.activity)} if methods.get(run.method).updates(run) else {}),
            **({} if status == "impossible" else {"effective": describe_effective(self.net)}),
            "cost": cost,
            "provenance": {
                "numerics": numerics(run),
                **self.there,
                **of_the_model(run),
                **({"boxes": self.data.notes} if self.data.notes else {}),
                **handed_on(provenance(environment.device), before),
                "threads": environment.threads,
                **handed_on({"processes": in_turn(state.processes)}, before),
                "mode": run.mode,
                "loader": environment.loader,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        }


def in_turn(numbers: Sequence[int]) -> int | str:
    """A number, or "1 then 2" where it was another one before."""
    return numbers[0] if len(numbers) == 1 else " then ".join(map(str, numbers))


def handed_on(here: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a record tells of these: "2.14.1 then 2.15.0" where the run that it continues was made by something else."""
    told = before["provenance"] if before else {}
    result = dict(here)
    for name in {*here} & {"torch", "torchvision", "device", "processes"}:
        there = told.get(name)
        if there is not None and there != here[name]:
            result[name] = there if str(there).endswith(f" then {here[name]}") else f"{there} then {here[name]}"
    return result

"""`ipbench grid`: what an experiment expands to, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ipbench import methods, output
from ipbench.cli.arguments import AsJson, path, whole
from ipbench.planning.experiment import Experiment
from ipbench.planning.jobs import Job
from ipbench.planning.lint import lint

app = typer.Typer()


@app.command()
def grid(
    config: Annotated[Path, typer.Argument(help="An experiment, such as config/quickstart.yaml.", parser=path)],
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write the resolved grid to this file.", parser=path)] = None,
    seeds_per_job: Annotated[int, typer.Option(help="Seeds that one job trains.", parser=whole(1))] = 6,
    sparsities_per_job: Annotated[int, typer.Option(help="Sparsities that one job trains.", parser=whole(1))] = 1,
) -> None:
    """Show the cells, runs and jobs an experiment expands to, and what it lacks to be a sound comparison."""
    from ipbench.store import write_json

    experiment = Experiment.load(config)
    jobs = experiment.jobs(seeds_per_job, sparsities_per_job)
    if out:
        write_json(out, experiment.grid())
        return
    counts = _counts(experiment, jobs)
    if as_json:
        output.say(
            json.dumps(
                {
                    **experiment.grid(),
                    "runs": [{"id": item.id, "cell": item.cell, "seed": item.seed} for item in experiment.runs],
                    "jobs": [
                        {"path": job.path, "runs": [item.id for item in job.runs], "continues": list(job.parents)}
                        for job in jobs
                    ],
                    "counts": counts,
                    "lint": [vars(finding) for finding in lint(experiment)],
                },
                indent=1,
            )
        )  # fmt: skip
        return
    before = f"; {counts['levels']} runs more that others continue" if counts["levels"] else ""
    output.say(
        f"{experiment.name}: {counts['cells']} cells, {counts['runs']} runs{before}; "
        f"{counts['jobs']} jobs, {counts['dense']} of them dense"
    )
    output.say("\n".join(f"  {job.label}" for job in jobs))
    for finding in lint(experiment):
        output.say(f"lint: {finding}")


def _counts(experiment: Experiment, jobs: Sequence[Job]) -> dict[str, int]:
    """How much there is to do: `levels` are runs that no table asks for, but that others continue."""
    seeds = len(experiment.axes.seeds)
    return {
        "cells": len(experiment.cells),
        "runs": len(experiment.cells) * seeds,
        "levels": (len(experiment.trained) - len(experiment.cells)) * seeds,
        "jobs": len(jobs),
        "dense": sum(not methods.get(job.cells[0].method).prunes for job in jobs),
    }

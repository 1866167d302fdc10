"""Writes results folders that look like an experiment's, with numbers that are easy to reason about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ipbench.planning.numerics import numerics
from ipbench.spec import Run, canonical_json, identity, pair_of
from ipbench.store import write_json

EPOCHS = 8
LAYERS = (
    ("conv1", (6, 1, 5, 5)),
    ("conv2", (16, 6, 3, 3)),
    ("fc1", (120, 400)),
    ("fc2", (84, 120)),
    ("head", (10, 84)),
)


def cell(
    method: str,
    space: str,
    sparsity: str,
    *,
    dataset: str = "digits",
    model: str = "lenet",
    off: str = "zero",
    allocation: str = "global",
    pattern: str = "coefficients",
    control: str = "none",
    budget: str = "parameters",
    basis: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    seeds: Iterable[int] = range(6),
    mode: str = "strict",
    knob: str = "",
) -> dict[str, Any]:
    """One cell of a grid; `knob` names the option that says how much is pruned."""
    axes = {
        "dataset": dataset, "model": model, "method": method, "off": off, "sparsity": sparsity,
        "allocation": allocation,
        "options": dict(options or {}), "recipe": dict(recipe or {"epochs": EPOCHS}), "mode": mode,
    }  # fmt: skip
    # Where they are usual they are left out, as in grids and records of versions that did not know them.
    axes |= {"pattern": pattern} if pattern != "coefficients" else {}
    axes |= {"budget": budget} if budget != "parameters" else {}
    axes |= {"control": control} if control != "none" else {}
    whole = axes | {"space": space, "basis": dict(basis or {})}
    family = "dense" if method == "dense" else "before training"
    try:
        run = Run(**whole)
        names = {"id": run.cell, "pair": pair_of(run)}
    except ValidationError:  # of a grid that is only looked at in memory, with names that are easy to read
        names = {"id": identity(whole), "pair": identity(axes)}
    return whole | names | {"family": family, "seeds": list(seeds)} | ({"knob": knob} if knob else {})


def grid(
    methods: Iterable[str] = ("snip", "grasp"),
    sparsities: Iterable[str] = ("0.9", "0.98"),
    spaces: Iterable[str] = ("sp", "ip"),
    dense: Iterable[str] = ("sp",),
    **axes: Any,
) -> dict[str, Any]:
    """A full grid with dense references in the given spaces."""
    cells = [
        cell("dense", space, "0", **{k: v for k, v in axes.items() if k in ("dataset", "model", "seeds", "mode")})
        for space in dense
    ]
    cells += [cell(method, space, p, **axes) for method, p, space in product(methods, sparsities, spaces)]
    return {"name": "small", "title": "A small grid", "cells": cells}


def record(
    cell: Mapping[str, Any], seed: int, status: str = "done", reason: str | None = None, **outcome: Any
) -> dict[str, Any]:
    """A record in the true format; `outcome` overrides its deterministic part."""
    axes = (
        "dataset",
        "model",
        "method",
        "recipe",
        "space",
        "basis",
        "off",
        "sparsity",
        "allocation",
        "options",
        "mode",
    )
    run = {name: cell[name] for name in axes} | {"seed": seed}
    run |= {name: cell[name] for name in ("pattern", "budget", "control") if name in cell}
    body = {} if status == "impossible" else _outcome(cell, seed) | outcome
    if body and cell.get("control", "").startswith(("scratch", "small-dense")):
        body = {"taken": {"of": "0" * 12, "epochs": EPOCHS}} | body
    return {
        "id": Run(**run).id,
        "cell": cell["id"],
        "run": run,
        "status": status,
        "reason": reason,
        "outcome": body,
        "outcome_sha256": hashlib.sha256(canonical_json(body).encode()).hexdigest(),
        "cost": {"wall_seconds": 10.0 + seed, "peak_memory_bytes": 123_456_789},
        "provenance": {
            "numerics": numerics(Run(**run)), "commit": "abc1234", "ipbench": "0.1.0", "python": "3.11.2",
            "torch": "2.13.0", "torchvision": "0.28.0", "numpy": "2.4.6", "platform": "Linux-x86_64", "cpu": "Test CPU",
            "device": "cpu",
            "threads": 1, "processes": 1, "mode": cell["mode"], "loader": "torch", "finished": "2026-11-01T00:00:00Z",
        },
    }  # fmt: skip


def write(results: Path, plan: Mapping[str, Any], skip: Iterable[tuple[str, int]] = (), **outcomes: Any) -> Path:
    """Write a grid and a record of every run but those in `skip`.

    `outcomes` maps the name of an outcome to a function of (cell, seed).
    """
    write_json(results / "grid.json", plan)
    missing = set(skip)
    for planned in plan["cells"]:
        for seed in planned["seeds"]:
            if (planned["id"], seed) not in missing:
                values = {name: value(planned, seed) for name, value in outcomes.items()}
                put(results, record(planned, seed, **values))
    return results


def put(results: Path, value: Mapping[str, Any]) -> Path:
    """Write one record where it belongs."""
    path = results / "runs" / value["cell"] / f"{value['run']['seed']}.json"
    write_json(path, value)
    return path


def _outcome(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    sparsity, ip = float(cell["sparsity"]), cell["space"] == "ip"
    rng = np.random.default_rng([seed, int(cell["pair"], 16) % 2**32])  # the pair's noise is shared by both spaces
    own = np.random.default_rng([seed, int(cell["id"], 16) % 2**32])
    hardness = -np.log10(1 - sparsity)
    bonus = {"snip": 0.012, "grasp": 0.006, "synflow": -0.008, "random": 0.001}.get(cell["method"], 0.0)
    level = {"snip": 0.030, "grasp": 0.034, "synflow": 0.026, "random": 0.08}.get(cell["method"], 0.0)
    accuracy = (
        0.96 - level * hardness**1.5 + (bonus * hardness if ip else 0) + 0.006 * rng.normal() + 0.002 * own.normal()
    )
    accuracy = float(np.round(np.clip(accuracy, 0.1, 1), 4))
    epochs = np.arange(1, EPOCHS + 1)
    loss = 2.3 * np.exp(-epochs * (0.55 if ip else 0.45)) + 0.15 * hardness + 0.03 * own.normal(size=EPOCHS)
    loss = np.abs(loss) + 0.02
    sizes = [int(np.prod(shape)) for _, shape in LAYERS]
    share = np.clip(
        (1 - sparsity) * np.array([8, 4, 0.8, 1, 3]) * (1.15 if ip else 1) * np.exp(0.1 * own.normal(size=5)), 0, 1
    )
    kept = [int(size * part) for size, part in zip(sizes, share, strict=True)] if sparsity else sizes
    total = sum(sizes)
    basis = 2 * 81 if ip else 0
    return {
        "test_accuracy": accuracy,
        "test_accuracy_selected": float(np.round(accuracy + 0.001, 4)),
        "selected_epoch": EPOCHS - 1,
        "test_loss": 0.2,
        "validation_accuracy": accuracy,
        "train_accuracy": float(np.round(min(1.0, accuracy + 0.03 - 0.008 * hardness), 4)),
        "train_loss": float(loss[-1]),
        "curves": {
            "train_loss": loss.tolist(),
            "validation_loss": (loss + 0.05).tolist(),
            "validation_accuracy": np.linspace(0.3, accuracy, EPOCHS).tolist(),
            "gradient_norm": np.linspace(2, 0.5, EPOCHS).tolist(),
        },
        "achieved_sparsity": 1 - (sum(kept) + basis) / total,
        "coefficients_kept": sum(kept),
        "basis_entries": basis,
        "prunable": total,
        "parameters": sum(kept) + basis + 236,
        "parameters_dense": total + 236,
        "layers": [
            {"name": name, "shape": list(shape), "size": size, "kept": n}
            for (name, shape), size, n in zip(LAYERS, sizes, kept, strict=True)
        ],
        "collapsed_layers": [name for (name, _), n in zip(LAYERS, kept, strict=True) if n == 0],
        "spatial_zeros_start": 0.5,
        "spatial_zeros_end": None,
        "basis_drift": {"3x3": 0.25} if ip else {},
        "basis_condition": {"3x3": 2.5} if ip else {},
        "macs_dense": 416_520,
        "macs_sparse": int(416_520 * (1 - sparsity)),
        "macs_sparse_two_stage": int(430_000 * (1 - sparsity)),
        "training_flops": 1.5e12,
        "bytes_values": 4 * (sum(kept) + basis),
        "bytes_bitmask": total // 8,
        "bytes_entropy": total / 20,
        "bytes_other": 944,
        "gradient_norm_start": 1.5,
        "masks_sha256": "0" * 64,
        "weights_sha256": "1" * 64,
    }  # fmt: skip


def sliced(cell: Mapping[str, Any], seed: int, share: float) -> dict[str, Any]:
    """What a record tells of a net of which this share of the channels of both convolutions is left, to whole ones."""
    convolutions = [(name, shape[0]) for name, shape in LAYERS if name.startswith("conv")]
    cut = [{"name": name, "channels": n, "kept": max(1, round(n * share))} for name, n in convolutions]
    macs = int(416_520 * share)
    return {
        "sliced": [layer for layer in cut if layer["kept"] < layer["channels"]],
        "macs_now": macs,
        "parameters_now": int(60_000 * share),
        "macs_sliced": macs,
        "reached": 1 - macs / 416_520,
    }


def latency(ratio: float, device: str = "cpu", threads: int = 1) -> dict[str, Any]:
    """What a record tells under `cost`, where the small net takes so many times as long as the dense one."""
    nets = {"dense": 0.5, "sliced": 0.5 * ratio}
    times = {name: {"seconds": s, "lower": s, "upper": s, "memory_bytes": 1000} for name, s in nets.items()}
    return {"batch": 64, "repetitions": 30, "threads": threads, "device": device, **times}

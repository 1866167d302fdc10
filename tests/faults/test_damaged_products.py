"""Truncated, flipped, emptied and exchanged files of every kind: named in one line, or of no consequence at all."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipbench.analysis.collect import read_parquet
from ipbench.data import beton, beton_writing
from ipbench.errors import BadProduct
from ipbench.packing.net import inspect
from ipbench.store import read_json, read_tensors, tensors_digest
from tests.faults.commands import Experiment, outcomes

#: Where a byte is flipped: at the start, in the first hundredth (headers), in the middle, at the end; and how often.
REGIONS = {"start": (0.0, 0.0), "header": (0.0, 0.01), "middle": (0.01, 0.95), "tail": (0.95, 1.0), "end": (1.0, 1.0)}
FLIPS = 12


def flipped(data: bytes, chance: random.Random, region: str) -> bytes:
    """One byte of a region is another one."""
    first, last = (round(share * (len(data) - 1)) for share in REGIONS[region])
    place = chance.randint(first, max(first, last))
    return data[:place] + bytes([data[place] ^ chance.randint(1, 255)]) + data[place + 1 :]


def damages(data: bytes, chance: random.Random) -> dict[str, bytes]:
    """Every damage to a file, by name."""
    cuts = {f"cut at {place}": data[:place] for place in (1, 9, len(data) // 2, len(data) - 1)}
    noise = {"zeros": bytes(len(data)), "longer": data + b"\0", "twice": data + data}
    flips = {f"{region} {n}": flipped(data, chance, region) for region in REGIONS for n in range(FLIPS)}
    return {"empty": b"", **cuts, **noise, **flips}


def json_content(path: Path) -> str:
    return json.dumps(read_json(path), sort_keys=True)


def tensors_content(path: Path) -> str:
    tensors, facts = read_tensors(path)
    return tensors_digest(tensors) + json.dumps(facts, sort_keys=True)


def parquet_content(path: Path) -> str:
    found = read_parquet(path)
    return "\n".join([found.runs.to_json(double_precision=15), str((found.grid, found.missing, found.unreadable))])


def packed_content(path: Path) -> str:
    return str(inspect(path))


@dataclass(frozen=True)
class Kind:
    """A kind of product: one of its files, how it is read, and the remedy that the message must name."""

    file: str
    content: Callable[[Path], str]
    remedy: str


KINDS = {
    "record": Kind("results/tiny/runs/*/0.json", json_content, "delete it"),
    "job": Kind("results/tiny/jobs/*/*/*/*/*/*.json", json_content, "delete it"),
    "grid": Kind("results/tiny/grid.json", json_content, "delete it"),
    "end": Kind("results/tiny/ends/*/0.safetensors", tensors_content, "delete it"),
    "state": Kind("results/tiny/state/*/0.safetensors", tensors_content, "delete it"),
    "parquet": Kind("results/tiny/runs.parquet", parquet_content, "collect the records again"),
    "packed": Kind("net.ipb", packed_content, "`ipbench pack`"),
}


@pytest.fixture(scope="module")
def whole(trained: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The finished experiment with a packed net, and one run stopped before its record: it has a state."""
    experiment = trained.copy(tmp_path_factory.mktemp("whole") / "copy")
    cell = next((experiment.results / "ends").iterdir()).name
    experiment.run("pack", f"results/tiny/runs/{cell}/0.json", "--out", "net.ipb").ok()
    (done,) = experiment.results.glob("jobs/*/*/ft/sp-*/*/*.json")
    place = experiment.results / "runs" / done.name.partition(".")[0]
    kept = place.rename(place.with_name("kept"))
    place.symlink_to("nowhere")
    experiment.run(*words_of(experiment, done, "0")).one_line("not written")
    place.unlink()
    kept.rename(place)
    return experiment


def words_of(experiment: Experiment, done: Path, seed: str) -> list[str]:
    """The words of `ipbench run` for one seed of a job, without its product."""
    (words,) = [words for words in experiment.jobs() if words[-1] == done.relative_to(experiment.folder).as_posix()]
    first = words.index("--seed")
    return [*words[:first], "--seed", seed, "--out", "results/tiny", *(["--keep"] if "--keep" in words else [])]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_no_damage_passes_silently(whole: Experiment, tmp_path: Path, kind: Kind) -> None:
    """What is read is what was written, or a message of one line names the file and the remedy."""
    source = sorted(whole.folder.glob(kind.file))[0]
    path = tmp_path / source.name
    data, content, refused = source.read_bytes(), kind.content(source), 0
    for name, damaged in damages(data, random.Random(kind.file)).items():
        path.write_bytes(damaged)
        try:
            assert kind.content(path) == content, name  # a byte that carries nothing: a blank, the name of a writer
        except BadProduct as error:
            assert str(path) in str(error) and "\n" not in str(error), name
            assert kind.remedy in str(error), f"{name}: {error}"
            refused += 1
    assert refused > 0.6 * len(damages(data, random.Random(0)))  # the others were bytes that carry nothing


@pytest.mark.parametrize("kind", ["record", "end", "state", "grid", "parquet", "packed"])
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "exchanged"])
def test_commands_refuse_damaged_files_in_one_line(whole: Experiment, tmp_path: Path, kind: str, damage: str) -> None:
    """Exit code 2, the file by name, no traceback; without it, all ends as undisturbed."""
    experiment = whole.copy(tmp_path / "copy")
    undisturbed = outcomes(experiment.results)
    (done,) = experiment.results.glob("jobs/*/*/ft/sp-*/*/*.json")
    cell = done.name.partition(".")[0]
    dense = next(path.name.partition(".")[0] for path in experiment.results.glob("jobs/*/*/dense/sp-*/*/*.json"))
    path, words = {
        "record": (experiment.results / f"runs/{cell}/0.json", words_of(experiment, done, "0")),
        "end": (experiment.results / f"ends/{dense}/0.safetensors", words_of(experiment, done, "0")),
        "state": (experiment.results / f"state/{cell}/0.safetensors", words_of(experiment, done, "0")),
        "grid": (experiment.results / "grid.json", ["tables", "results/tiny"]),
        "parquet": (experiment.results / "runs.parquet", ["summary", "results/tiny"]),
        "packed": (experiment.folder / "net.ipb", ["inspect", "net.ipb"]),
    }[kind]
    if kind in ("state", "end"):
        (experiment.results / f"runs/{cell}/0.json").unlink()
    if kind == "end":
        (experiment.results / f"state/{cell}/0.safetensors").unlink()
    data = path.read_bytes()
    if damage == "exchanged":  # with another run's file of the same kind, or another kind where there is but one
        other = next((p for p in sorted(path.parent.parent.glob(f"*/{path.name}")) if p != path and p.is_file()), None)
        foreign = other if kind in ("record", "end") else experiment.results / "ends" / dense / "0.safetensors"
        assert foreign
        path.write_bytes(foreign.read_bytes())
    else:
        path.write_bytes(
            {"empty": b"", "cut": data[:-20], "flipped": flipped(data, random.Random(1), "middle")}[damage]
        )
    ended = experiment.run(*words)
    if (kind, damage) != ("state", "exchanged") or ended.code:  # a state of another run is none: trained anew
        ended.one_line(path.relative_to(experiment.folder).as_posix())
    if kind == "packed":
        return
    path.unlink(missing_ok=True)
    if kind == "grid":
        experiment.run("grid", "config/tiny.yaml", "--out", "results/tiny/grid.json").ok()
    if kind == "parquet":
        experiment.run("collect", "results/tiny").ok()
    if kind == "end":  # of a run with a record: made again from its seed
        experiment.run(*words).ok()
    experiment.run(*words).ok()
    assert outcomes(experiment.results) == undisturbed


def test_a_damaged_record_is_counted_as_missing_and_named(copied: Experiment) -> None:
    record = sorted(copied.results.glob("runs/*/1.json"))[0]
    record.write_bytes(flipped(record.read_bytes(), random.Random(2), "middle"))
    copied.run("tables", "results/tiny").ok()
    missing = (copied.results / "tables/missing.md").read_text()
    assert f"{record.parent.name}/1.json" in missing.replace("\\_", "_"), missing


def test_one_damaged_record_does_not_stop_the_other_runs_of_a_job(copied: Experiment) -> None:
    """The job names the file and fails; the other seed is trained."""
    words = copied.jobs()[-1]
    cell = Path(words[-1]).name.partition(".")[0]
    first, second = (copied.results / f"runs/{cell}/{seed}.json" for seed in (0, 1))
    undisturbed = outcomes(copied.results)
    first.write_bytes(first.read_bytes()[:100])
    second.unlink()
    ended = copied.run(*words)
    assert ended.code == 1 and "Traceback" not in ended.err, ended.err
    assert f"{first.relative_to(copied.folder)}: not readable as JSON" in ended.err and second.exists()
    first.unlink()
    copied.run(*words).ok()
    assert outcomes(copied.results) == undisturbed


def test_damaged_job_files_change_nothing(copied: Experiment) -> None:
    """Only Snakemake looks at them, and only whether they are there: no number comes from them."""
    copied.run("tables", "results/tiny").ok()
    before = {path: path.read_bytes() for path in (copied.results / "tables").iterdir()}
    for path in copied.results.glob("jobs/**/*.json"):
        path.write_bytes(b"")
    copied.run("tables", "results/tiny").ok()
    assert {path: path.read_bytes() for path in (copied.results / "tables").iterdir()} == before


@pytest.mark.ffcv
def test_no_damage_to_a_beton_file_passes(tmp_path: Path) -> None:
    if reason := beton.available():
        pytest.skip(reason)
    path = beton_writing.write("digits", "test", tmp_path)
    product = path.with_suffix(".json")
    for source in (path, product):
        data, chance = source.read_bytes(), random.Random(source.name)
        flips = [flipped(data, chance, region) for region in REGIONS]
        for damaged in (b"", data[:-1] if source is path else data[:-9], data[: len(data) // 2], data + b"0", *flips):
            source.write_bytes(damaged)
            with pytest.raises(BadProduct) as error:
                beton.check("digits", "test", path)
            assert str(path.with_suffix("")) in str(error.value) and "\n" not in str(error.value)
        source.write_bytes(data)
    beton.check("digits", "test", path)

"""All records of an experiment in one table: `runs.parquet`, written atomically, with a checksum of its content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ipbench import files
from ipbench.analysis.by_hand import grid_of
from ipbench.analysis.checks import check_values
from ipbench.analysis.grid import AXES, LATER, Grid, check, parse, read_grid, to_json
from ipbench.analysis.records import COLUMNS, column_type, row
from ipbench.errors import BadInput, BadProduct
from ipbench.spec import canonical_json
from ipbench.store import FORMAT, read_json, write_bytes

#: Name of the product inside a results folder.
RUNS = "runs.parquet"
#: Of it: as many runs as an experiment may have, and what curves of hundreds of epochs come to.
MOST_RUNS, MOST_BYTES = 1_000_000, 2**34


@dataclass(frozen=True)
class Unreadable:
    """A record that exists but cannot be used, and why (one line that names the file)."""

    cell: str
    seed: int
    message: str


@dataclass(frozen=True)
class Collection:
    """What an experiment planned and what has arrived.

    Attributes:
        grid: the plan.
        runs: one row per readable record, ordered as the grid's cells and by seed; columns as `records.COLUMNS`.
        missing: (cell, seed) of every planned run without a readable record.
        unreadable: the missing ones whose record exists.
    """

    grid: Grid
    runs: pd.DataFrame
    missing: tuple[tuple[str, int], ...]
    unreadable: tuple[Unreadable, ...]

    def without_controls(self) -> Collection:
        """What is of the methods themselves."""
        grid = self.grid.without_controls()
        if len(grid.cells) == len(self.grid.cells):
            return self
        kept = {cell.id for cell in grid.cells}
        return Collection(
            grid,
            self.runs[self.runs["cell"].isin(kept)].reset_index(drop=True),
            tuple(run for run in self.missing if run[0] in kept),
            tuple(record for record in self.unreadable if record.cell in kept),
        )


def collect(results: Path, grid: Grid | None = None) -> Collection:
    """Read the records of every planned run under `results`; a missing or damaged one is listed, not an error.

    Records of runs that the grid does not plan (of an earlier version of it, say) are left alone.

    Args:
        results: a folder with `grid.json` and `runs/<cell>/<seed>.json`.
        grid: what is planned; that of `grid.json` if left out, and without one what there is.

    Raises:
        BadInput: `grid.json` is not usable.
    """
    if grid is None:
        by_hand = not (results / "grid.json").exists() and (results / "runs").is_dir()
        grid = parse(grid_of(results), str(results)) if by_hand else read_grid(results)
    rows, missing, unreadable = [], [], []
    for cell in grid.cells:
        for seed in sorted(cell.seeds):
            path = results / "runs" / cell.id / f"{seed}.json"
            try:
                rows.append(row(read_json(path), cell, seed))
            except (BadInput, ValueError, OSError) as error:
                place = path.relative_to(results).as_posix()
                reason = " ".join(str(error).split()).removeprefix(f"{path}: ")
                missing.append((cell.id, seed))
                if not isinstance(error, files.Missing) or path.is_symlink():
                    unreadable.append(Unreadable(cell.id, seed, f"{place}: {reason}"))
    return Collection(grid, _frame(_table(rows)), tuple(missing), tuple(unreadable))


def write_parquet(collection: Collection, path: Path) -> None:
    """Write a collection atomically; equal collections give equal bytes."""
    write_bytes(path, _parquet(collection))


def _parquet(collection: Collection) -> bytes:
    """A collection as a Parquet file.

    The schema's metadata carries `ipbench` (the grid and the lists of missing and unreadable runs, as JSON) and
    `checksum` (SHA-256 of that text and of the canonical JSON of the rows).
    """
    table = _table(_rows(collection.runs))
    facts = canonical_json(
        {
            "format": FORMAT,
            "grid": to_json(collection.grid),
            "missing": [list(run) for run in collection.missing],
            "unreadable": [vars(record) for record in collection.unreadable],
        }
    )
    table = table.replace_schema_metadata({"ipbench": facts, "checksum": _checksum(table, facts)})
    file = pa.BufferOutputStream()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    content: bytes = file.getvalue().to_pybytes()
    return content


def read_parquet(path: Path) -> Collection:
    """Read and check what `write_parquet` wrote.

    Raises:
        BadProduct: the file is missing, truncated, altered or of another format; the message names it.
    """
    remedy = "collect the records again"
    try:
        files.opened(path).close()  # what the system refuses is no damage, and a pipe would never end
    except files.Missing:
        raise files.Missing(f"{path}: no such file; {remedy}") from None
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_claims(path, file.metadata)
            table = file.read()
        metadata = table.schema.metadata or {}
        facts, checksum = metadata[b"ipbench"].decode(), metadata[b"checksum"].decode()
        table = table.replace_schema_metadata(None)
        intact = checksum == _checksum(table, facts)
        content = json.loads(facts)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise BadProduct(f"{path}: not readable ({type(error).__name__}); {remedy}") from None
    if not intact:
        raise BadProduct(f"{path}: checksum does not match, the file was altered; {remedy}")
    if content["format"] != FORMAT:
        raise BadProduct(f"{path}: written in another format than {FORMAT}, the only one this version reads; {remedy}")
    grid = parse(content["grid"], str(path))
    check(grid, str(path))
    try:
        _check_rows(table, grid)
        collection = Collection(
            grid,
            _frame(table),
            tuple((cell, seed) for cell, seed in content["missing"]),
            tuple(Unreadable(**record) for record in content["unreadable"]),
        )
        _check_missing(collection)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        said = error if type(error) is ValueError else f"not a collection ({type(error).__name__})"
        raise BadProduct(f"{path}: {' '.join(str(said).split())}; {remedy}") from None
    return collection


def _check_rows(table: pa.Table, grid: Grid) -> None:
    """Whether every row is of a planned run, holds its axes, and can be right.

    Raises:
        ValueError: one cannot; the message names the run.
    """
    for name in table.column_names:
        wanted = COLUMNS.get(name)
        if wanted is not None and table.schema.field(name).type != wanted:
            raise ValueError(f"column {name} is of {table.schema.field(name).type}, not {wanted}")
    cells = {cell.id: cell for cell in grid.cells}
    seen: set[tuple[str, int]] = set()
    for values in table.to_pylist():
        cell, seed = cells.get(values["cell"]), values["seed"]
        if cell is None or seed not in cell.seeds or (cell.id, seed) in seen:
            raise ValueError(f"a row of the run {values['cell']}/{seed}, which is not planned, or there twice")
        seen.add((cell.id, seed))
        try:
            # A value that an older record does not write is the default: by its run, not by its text.
            axes = {name: values[name] for name in AXES if name not in LATER}
            axes |= {name: values.get(name) or usual for name, usual in LATER.items()}
            held = replace(cell, **axes)
            ids = {values["id"], held.run(seed).id, cell.run(seed).id}
            if len(ids) > 1 or (held.pair, held.family) != (cell.pair, cell.family):
                raise ValueError(f"holds the axes of another run than {values['id']!r:.20} of its cell")
            check_values(values)
        except (BadInput, ValueError) as error:
            raise ValueError(f"run {cell.id}/{seed}: {error}") from None


def _check_missing(collection: Collection) -> None:
    """Whether the runs without a row are those that are listed as missing."""
    there = set(zip(collection.runs["cell"], collection.runs["seed"].astype(int), strict=True))
    planned = [(cell.id, seed) for cell in collection.grid.cells for seed in cell.seeds]
    missing = set(planned) - there
    odd = {(record.cell, record.seed) for record in collection.unreadable}
    if set(collection.missing) != missing or len(collection.missing) != len(missing) or not odd <= missing:
        raise ValueError("its list of missing runs is not what is missing in it")


def _check_claims(path: Path, metadata: pq.FileMetaData) -> None:
    """Whether what the file says it holds can be right, before room is made for it."""
    size = sum(metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups))
    if metadata.num_rows > MOST_RUNS or size > MOST_BYTES:
        raise BadProduct(
            f"{path}: claims {metadata.num_rows:,} runs of {size:,} bytes, where at most {MOST_RUNS:,} of"
            f" {MOST_BYTES:,} can be right; collect the records again"
        )


def load_both(results: Path) -> tuple[Collection, Collection]:
    """The collection in `results/runs.parquet` with its controls, and without; errors are those of `load`."""
    whole = load(results, controls=True)
    own = whole.without_controls()
    if not own.grid.cells:
        raise BadInput(f"{results / RUNS}: it has runs of controls alone, and none that they are controls of")
    return whole, own


def load(results: Path, *, controls: bool = False) -> Collection:
    """The collection in `results/runs.parquet`, which must be of the grid that stands beside it.

    Args:
        results: an experiment's folder.
        controls: with the controls of its methods, which are no members of comparisons and stand in a table of their
            own (`analysis.survival`).

    Raises:
        BadProduct: `runs.parquet` is missing or damaged.
        BadInput: `grid.json` has changed since it was collected, or there are controls alone.
    """
    if not controls:
        return load_both(results)[1]
    path = results / RUNS
    collection = read_parquet(path)
    if (results / "grid.json").exists() and not read_grid(results).plans_the_same(collection.grid):
        raise BadInput(f"{path}: grid.json has changed since; collect the records again")
    return collection


def write_runs(results: Path, *, complete: bool = False) -> Path:
    """Collect the records of `results` into its `runs.parquet`; returns that file.

    A file that says the same already is left alone, its date too: what was made from it is not out of date then.

    Args:
        results: as of `collect`.
        complete: whether every planned run must have a record.

    Raises:
        BadInput: `grid.json` is not usable, or a record is missing where none may be.
    """
    path = results / RUNS
    collection = collect(results)
    if complete and collection.missing:
        first = [record.message for record in collection.unreadable] or [
            f"runs/{cell}/{seed}.json: no such file" for cell, seed in collection.missing
        ]
        again = "give the same call again, which trains them"
        if collection.unreadable:  # what is there is not always trained again
            again = f"delete what cannot be used, `ipbench status {results}` names all of it; then {again}"
        raise BadInput(
            f"{results}: {len(collection.missing)} of {collection.grid.planned} planned runs have no usable record:"
            f" {first[0]}; {again}"
        )
    content = _parquet(collection)
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)
    return path


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table with the columns of `COLUMNS` and, behind them, those this version does not know."""
    names = [*COLUMNS, *sorted({name for row in rows for name in row} - set(COLUMNS))]
    arrays, fields = [], []
    for name in names:
        values = [row.get(name) for row in rows]
        kind = column_type(name, values)
        if kind == pa.string():  # an unknown field may be a number in one record and a text in the next
            values = [value if value is None or isinstance(value, str) else canonical_json(value) for value in values]
        arrays.append(pa.array(values, kind))
        fields.append(pa.field(name, kind))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _frame(table: pa.Table) -> pd.DataFrame:
    """As pandas; whole numbers stay whole where some are missing, and curves are lists."""
    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    for name in frame.columns:
        if pa.types.is_list(table.schema.field(name).type):
            frame[name] = pd.Series(table.column(name).to_pylist(), index=frame.index, dtype=object)
    return frame


def _rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain values, with None for whatever pandas writes in its place."""
    columns = {
        name: [value if isinstance(value, list) else None if pd.isna(value) else value for value in runs[name]]
        for name in runs.columns
    }
    return [{str(name): values[index] for name, values in columns.items()} for index in range(len(runs))]


def _checksum(table: pa.Table, facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    digest.update(canonical_json(table.column_names).encode())
    for batch in table.to_batches(max_chunksize=256):
        digest.update(canonical_json(batch.to_pylist()).encode())
    return digest.hexdigest()

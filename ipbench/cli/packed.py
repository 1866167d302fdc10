"""The commands on trained nets as files: `ipbench pack`, `inspect`, `unpack`, `slice`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipbench import output
from ipbench.cli.arguments import path
from ipbench.errors import BadInput, valid_choice
from ipbench.spec import Own, Run, build
from ipbench.store import read_json

if TYPE_CHECKING:
    from ipbench.packing.file import Sizes
    from ipbench.runs.state import End

app = typer.Typer()


@app.command()
def pack(
    record: Annotated[
        Path, typer.Argument(help="Of a run with its end: results/NAME/runs/CELL/SEED.json.", parser=path)
    ],
    out: Annotated[Path, typer.Option(help="The file to write.", parser=path)],
    values: Annotated[str, typer.Option(help="How kept values are stored: fp32, fp16 or bf16.")] = "fp32",
) -> None:
    """Write a trained net as one small file: kept values, their places, the seed for all the rest."""
    from ipbench.packing import file as packed_file  # here, as below: they import torch
    from ipbench.packing import net as packing

    valid_choice(values, packed_file.VALUES, "type of values", "--values")
    run, end = _end_of(record, out)
    sizes = packing.pack(out, run, end, values)
    _print_sizes(sizes, out)
    if sizes.zeroed:
        output.say(f"{sizes.zeroed:,} kept values are too small for {values} and are zero in the file")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A packed net.", parser=path)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    effective: Annotated[
        bool, typer.Option("--effective", help="Also what of it is on a path from input to output: the net is built.")
    ] = False,
) -> None:
    """Print what a packed net holds, byte by byte."""
    from ipbench.packing import net as packing
    from ipbench.runs.effective import describe_effective

    header, sizes = packing.inspect(file)
    told = {"effective": describe_effective(packing.unpack(file))} if effective else {}
    if as_json:
        known = {name: value for name, value in asdict(sizes).items() if name != "zeroed"}
        output.say(json.dumps({"header": header, **known, "total": sizes.total, **told}, indent=1))
        return
    output.say(
        " ".join(f"{name}={header[name]}" for name in ("dataset", "model", "run", "seed", "space", "off", "values"))
    )
    for name, (units, digits) in header.get("structure", {}).items():
        output.say(f"{name}: {int(digits, 16).bit_count()} of {units} channels")
    _print_sizes(sizes, file)
    for name, value in told.get("effective", {}).items():
        output.say(f"effective {name}: {value:,}" if isinstance(value, int | float) else f"effective {name}: {value}")


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(help="A packed net.", parser=path)],
    out: Annotated[
        Path, typer.Option(help="A safetensors file with the state of the plain torch module.", parser=path)
    ],
) -> None:
    """Write a packed net as the state of the plain torch module: spatial weights, whatever the space.

    Of a net whose channels were cut, the file's facts tell which are left of every channel group.
    """
    from ipbench.packing import net as packing
    from ipbench.store import write_tensors

    _spare(file, out)
    net = packing.unpack(file)
    structure = {"structure": net.structure.to_json()} if net.structure else {}
    write_tensors(out, packing.plain_state(net), {"packed": file.name, **structure})
    output.progress(out)


@app.command("slice")
def cut(
    record: Annotated[
        Path, typer.Argument(help="Of a run with its end: results/NAME/runs/CELL/SEED.json.", parser=path)
    ],
    to: Annotated[
        Path, typer.Option(help="What to write: TO.safetensors, the tensors, and TO.json, what they are.", parser=path)
    ],
    constant: Annotated[
        str, typer.Option(help="What a channel without filters still sends on: drop, refuse or fold it.")
    ] = "drop",
    onnx: Annotated[Path | None, typer.Option(help="Write the net in ONNX, too.", parser=path)] = None,
) -> None:
    """Write a trained net without its dead channels, as a plain dense net: smaller tensors, no masks, no filter bases.

    `ipbench.packing.dense.load(TO)` reads it back as a torch module.
    """
    from ipbench.packing import dense

    chosen = dense.constant_of(constant, "--constant")
    run, end = _end_of(record, *dense.files_of(to), *([onnx] if onnx else []))
    net = dense.save(to, run, end, constant=chosen, onnx=onnx)
    for name, kept in net.structure.kept.items():
        output.say(f"{name}: {len(kept)} of {net.groups[name].units} channels")
    if not net.structure:
        output.say("no channel is dead: the net has all of them")
    now, before = net.now, net.counted
    output.say(
        f"{now.parameters:,} of {before.parameters:,} parameters: x{before.parameters / now.parameters:.1f} fewer;"
        f" {now.macs:,} of {before.macs:,} multiply-accumulates: x{before.macs / now.macs:.1f} fewer"
    )


def _end_of(record: Path, *outputs: Path) -> tuple[Run, End]:
    """The run of a record, and where it ended; `outputs`: what will be written.

    Raises:
        BadInput: the record is not one, the end is not there, or one of both would be overwritten.
    """
    from ipbench.runs.state import read_end

    _spare(record, *outputs)
    recorded = read_json(record)
    run = build(Run, recorded.get("run"), f"{record}: run")
    if run.own != Own():
        raise BadInput(
            f"{record}: a run with a model, weights or a data set of a user's: such files say by names alone what they"
            " hold, and these names are known nowhere else; its end is a safetensors file, results/NAME/ends"
        )
    told = recorded.get("provenance")
    content = {name: told[name] for name in ("data", "method") if name in told} if isinstance(told, dict) else {}
    folders = record.absolute().parents  # CELL, runs, NAME
    if len(folders) < 3 or folders[1].name != "runs":
        raise BadInput(f"{record}: not where a run's record lies, results/NAME/runs/CELL/SEED.json")
    end = folders[2] / "ends" / run.cell / f"{run.seed}.safetensors"
    if not end.is_file():
        raise BadInput(f"{end}: no such file; `ipbench run --keep` with this run's options keeps where it ends")
    _spare(end, *outputs)
    return run, read_end(end, run, content)


def _spare(source: Path, *outputs: Path) -> None:
    """Refuse to write over what is read.

    Raises:
        BadInput: an output is that file.
    """
    for file in outputs:
        if file.resolve() == source.resolve():
            raise BadInput(f"{file}: would be written over what is read; another file is wanted")


def _print_sizes(sizes: Sizes, file: Path) -> None:
    for name, size in sizes.parts.items():
        output.say(f"{name:24} {size:>12,} bytes")
    output.say(
        f"{file!s:24} {sizes.total:>12,} bytes: x{sizes.dense_bytes / sizes.total:.1f} against the dense net in fp32"
    )
    factor = sizes.parameters_dense / sizes.parameters
    output.say(f"{sizes.parameters:,} of {sizes.parameters_dense:,} parameters are stored: x{factor:.1f} fewer")

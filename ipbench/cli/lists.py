"""The commands that tell what there is: `ipbench methods`, `ipbench models`, `ipbench datasets`."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ipbench import files, methods, output
from ipbench.cli.arguments import AsJson, path
from ipbench.cli.run import MethodFiles
from ipbench.data import catalog as datasets
from ipbench.errors import BadInput, valid_choice
from ipbench.models import catalog as models
from ipbench.store import read_json

app = typer.Typer()

#: Bytes of a model file.
_MOST = 2**24


@app.command("methods")
def list_methods(as_json: AsJson = False, method_file: MethodFiles = None) -> None:
    """List the pruning methods with their options and papers."""
    methods.load([*methods.rule_files(), *(method_file or [])])
    entries = [entry.describe() for entry in methods.methods().values()]
    if as_json:
        output.say(json.dumps(entries, indent=1))
        return
    for entry in entries:
        output.say(f"{entry['name']}  ({entry['family']})\n    {entry['summary']}\n    {entry['paper']}")
        output.say(f"    stages: {', '.join(entry['stages'])}")
        for name, option in entry["options"].items():
            output.say(f"    --option {name}={option['default']}")


@app.command("models")
def list_models(
    as_json: AsJson = False,
    of: Annotated[str, typer.Option(help="Whose: ipbench, torchvision or timm.")] = "ipbench",
    model_file: Annotated[
        Path | None, typer.Option(help="A Python file: the functions in it that may make models.", parser=path)
    ] = None,
) -> None:
    """List the models: what they are, and how large with images of a usual size; `ipbench count` tells of others."""
    valid_choice(of, ("ipbench", "torchvision", "timm"), "source of models", "--of")
    if model_file is not None:
        found = list(_in_file(model_file))
    elif of == "ipbench":
        found = [_shipped(name, text) for name, text in {**models.MODELS, **models.DETECTORS}.items()]
    else:
        known = models.torchvision_models() if of == "torchvision" else models.timm_models()
        if not known:
            raise BadInput("--of timm: timm is not installed: pip install 'ipbench[timm]'")
        found = [{"name": f"timm/{name}" if of == "timm" else name, "from": of} for name in sorted(known)]
    if as_json:
        output.say(json.dumps(found, indent=1))
        return
    for one in found:
        output.say(one["name"])
        if one.get("parameters"):
            output.say(
                f"    images of {one['input']}, {one['classes']} classes: {one['parameters']:,} parameters,"
                f" {one['macs']:,} multiply-accumulates"
            )
        if one.get("summary"):
            output.say(f"    {one['summary']}")
    if of == "ipbench" and model_file is None:
        output.say(
            "besides: classification models of torchvision (--of torchvision) and, as timm/NAME, of timm (--of timm);"
            " your own: --model-file FILE"
        )


def _shipped(name: str, summary: str) -> dict[str, Any]:
    size = models.SIZES[name]
    return {
        "name": name, "from": "ipbench", "task": models.task_of_model(name), "summary": summary,
        "input": size.input, "classes": size.classes, "parameters": size.parameters, "macs": size.macs,
    }  # fmt: skip


def _in_file(file: Path) -> Iterator[dict[str, Any]]:
    """The functions and classes of a file, which is not run."""
    if file.suffix != ".py":
        raise BadInput(f"{file}: not the path of a model file, which ends in .py")
    try:
        tree = ast.parse(files.read(file, _MOST))
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{file}: not readable as Python ({error})") from None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            text = (ast.get_docstring(node) or "").partition("\n")[0]
            yield {"name": node.name, "from": str(file), "summary": text}


@app.command("datasets")
def list_data_sets(
    as_json: AsJson = False,
    data: Annotated[Path, typer.Option("--data", help="Folder of the data sets.", parser=path)] = Path("data"),
) -> None:
    """List the data sets with their tasks, sizes, default models and sources, then your own that were looked at."""
    own = list(_looked_at(data))
    if as_json:
        named = ("name", "task", "shape", "classes", "train", "test", "model", "source")
        known = [{key: getattr(one, key) for key in named} for one in datasets.DATASETS.values()]
        output.say(json.dumps(known + own, indent=1))
        return
    for one in datasets.DATASETS.values():
        counts = "the folder decides how many" if one.train is None else f"{one.train:,} + {one.test:,}"
        size = " x ".join(map(str, one.shape))
        output.say(f"{one.name}  ({one.task})\n    {counts} images of {size}, {one.classes} classes; model {one.model}")
        output.say(f"    {one.source}")
    for told in own:
        output.say(f"{told['name']}  (yours)\n    {told['place']}, {told['kind']}, SHA-256 {told['sha256']:.12}")


def _looked_at(data: Path) -> Iterator[dict[str, Any]]:
    """Users' data sets of which something is kept below the data folder."""
    for file in sorted((data / "own").glob("*.json")):
        told = read_json(file)
        name = file.name.rsplit(".", 2)[0]
        yield {"name": name, "place": told["place"], "kind": told["kind"], "sha256": told["sha256"]}

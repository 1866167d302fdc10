"""Mistakes that a real Snakemake meets: in profiles, in --config, in an experiment, in how it is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import Checkout, check_out

pytestmark = pytest.mark.workflow

MACHINE = "valid: gpus, jobs_per_gpu, processes, seeds_per_job, sparsities_per_job"


@dataclass(frozen=True)
class Call:
    """One call of `snakemake --dry-run`.

    Attributes:
        config: words behind --config.
        profile: what `config:` of the profile says in place of what it said.
        experiment: keys of the experiment that are changed.
        file: of the experiment.
    """

    id: str
    says: tuple[str, ...]
    config: tuple[str, ...] = ()
    profile: dict[str, object] | None = None
    experiment: dict[str, object] | None = None
    file: str = "config/tiny.yaml"

    def __str__(self) -> str:
        return self.id


CASES = [
    Call("config-unknown", ("'seeds_pr_job'", "did you mean 'seeds_per_job'", MACHINE), config=("seeds_pr_job=3",)),
    Call("config-zero", ("--config seeds_per_job=0", "a whole number from 1 up"), config=("seeds_per_job=0",)),
    Call("config-bool", ("--config sparsities_per_job=true", "a whole number"), config=("sparsities_per_job=true",)),
    Call("config-gpu-twice", ("--config gpus=0,0", "GPU 0 is given twice"), config=("gpus='0,0'",)),
    Call("config-gpu-command", ("gpus=$(touch pwned)", "is no GPU", "e.g. 0,1"), config=("gpus='$(touch pwned)'",)),
    Call("profile-unknown", ("'seed_per_job'", "did you mean 'seeds_per_job'", MACHINE), profile={"seed_per_job": 3}),
    Call("experiment-climbs", ("config/tiny.yaml: name", "not a name", "'../../x'"), experiment={"name": "../../x"}),
    Call("experiment-is-a-method-file", ("m.py: no such file",), experiment={"methods": ["$(touch pwned)/m.py"]}),
]  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A dry run leaves nothing in it."""
    return check_out(tmp_path_factory.mktemp("checkout"))


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_one_line_and_no_file(bad: Call, checkout: Checkout) -> None:
    checkout.write(**(bad.experiment or {}))
    profile = Path(checkout.folder / "profiles/mine/profile.yaml")
    profile.parent.mkdir(exist_ok=True)
    settings = yaml.safe_load((checkout.folder / "profiles/local/profile.yaml").read_text())
    profile.write_text(yaml.safe_dump(settings | ({} if bad.profile is None else {"config": bad.profile})))
    before = _files(checkout.folder)
    words = ["--dry-run", *(["--config", *bad.config] if bad.config else [])]
    done = checkout.snakemake(*words, profile="profiles/mine", config=bad.file)
    lines = [
        line for line in done.stdout.splitlines() if not line.startswith(("Using profile", "Assuming unrestricted"))
    ]
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("Error: "), done.stdout
    assert all(word in lines[0] for word in bad.says), lines[0]
    assert _files(checkout.folder) == before


def _files(folder: Path) -> list[str]:
    """What lies there but for Snakemake's own notes."""
    paths = (path.relative_to(folder) for path in folder.rglob("*"))
    return sorted(str(path) for path in paths if path.parts[0] != ".snakemake")

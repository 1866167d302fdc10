"""`ipbench experiment`: one call of real Snakemake, what it tells, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ipbench.cli.main import main
from tests.workflow.conftest import TINY, Checkout

pytestmark = pytest.mark.workflow


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "ipbench", "experiment", "config/tiny.yaml", "--cores", "1", *words]


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_finished_experiment_tells_its_result_and_where_it_lies(finished: Checkout) -> None:
    before = finished.files("runs/*/*.json")
    done = call(finished.folder)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[0] == "tiny: 4 trainings, 4 of them there already; results in results/tiny/"
    assert any(line.startswith("SP prunes weights; IP prunes coefficients") for line in told)
    assert told[-4:] == [
        "picture   results/tiny/figures/forest.digits-small-vgg.all.both.svg",
        "figures   results/tiny/figures/",
        "tables    results/tiny/tables/",
        "report    results/tiny/report.html",
    ]
    assert finished.files("runs/*/*.json") == before


def test_a_signal_ends_it_in_one_line_and_the_next_call_goes_on(checkout: Checkout) -> None:
    checkout.write(recipe={"epochs": 40})
    process = subprocess.Popen(
        command(), cwd=checkout.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=ignore_interrupts,
    )  # fmt: skip
    try:
        wait_for(lambda: list(checkout.results.glob("logs/**/random/**/*.log")), process)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 75, out + err
    assert err == "ipbench: 0 of 4 trainings are done: stopped; the same command goes on there\n"
    assert not list(checkout.folder.glob(".snakemake/locks/*"))
    checkout.write()  # four trainings of one epoch, in its place
    done = call(checkout.folder)
    assert done.returncode == 0, done.stderr
    assert "4 of 4" in done.stdout and "random" in done.stdout


def ignore_interrupts() -> None:
    """As a shell does for what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate(timeout=10)
        time.sleep(0.1)


def test_what_fails_is_named(checkout: Checkout) -> None:
    (checkout.folder / "broken.py").write_text(
        "from ipbench.methods import before_training, method\n\n\n"
        '@method(when=before_training, paper="none")\n'
        'def broken(net, batch):\n    """Fail."""\n    raise ValueError("on purpose")\n'
    )
    checkout.write(methods=["broken.py"], spaces="sp")
    done = call(checkout.folder)
    assert done.returncode == 1
    assert "on purpose" in done.stderr and "failed: 1 jobs" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("ipbench: results/tiny is not complete")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["quickstrat"], "unknown experiment 'quickstrat' (did you mean 'quickstart'?)"),
        (["config/none.yaml"], "config/none.yaml"),
        (["quickstart", "--profile", "nowhere"], "'nowhere' is no folder with a profile.yaml; valid: a folder, local"),
        (["quickstart", "--cores", "0"], "cores"),
    ],
)
def test_bad_input_is_one_line(words, says, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not list(tmp_path.iterdir())


def test_what_snakemake_refuses_is_one_line(tmp_path, monkeypatch) -> None:
    file = tmp_path / "a {b}.yaml"
    file.write_text(yaml.safe_dump(TINY))
    words = [sys.executable, "-m", "ipbench", "experiment", str(file), "--cores", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr

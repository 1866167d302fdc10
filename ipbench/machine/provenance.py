"""Where a number came from: commit, versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("ipbench", "torch", "torchvision", "numpy", "scipy", "pillow")


@cache
def provenance(device: str) -> dict[str, str | None]:
    """Commit, versions, processor and device of this process; of a GPU also what else decides bits and times there.

    Args:
        device: a torch device that computes, such as "cpu" or "cuda:0".
    """
    return {
        "commit": commit(),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "cpu": _processor(),
        "instructions": instructions(),
        "device": _device(device),
        **({} if device == "cpu" else _gpu(device)),
    }


def commit() -> str | None:
    """The commit of the checkout that this package runs from, with "+changes" if tracked files differ; else None.

    Where git knows the commit and will not tell it, because the checkout belongs to another user, this is said in its
    place.
    """
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # installed into somebody else's repository
            return None
        head = git("rev-parse", "HEAD")
        return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except subprocess.CalledProcessError as error:
        return "unknown: git says dubious ownership, see safe.directory" if "dubious" in error.stderr else None
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def instructions() -> str:
    """What decides the bits of sums on a processor, and its name may hide: a cloud calls many of them "AMD EPYC".

    The vector instructions that torch chose here, and the processor's family and model.
    """
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    numbers = [f"{name} {told[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in told]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *numbers])


def _device(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name(device)


def _gpu(device: str) -> dict[str, str | None]:
    """Versions of CUDA, cuDNN and the driver, the GPU's compute capability, and how many jobs share it if leased."""
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    jobs = os.environ.get("IPBENCH_JOBS_PER_GPU")
    return {
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()),
        "driver": _driver(),
        "capability": f"{major}.{minor}",
        **({"jobs_per_gpu": jobs} if jobs else {}),
    }


def _driver() -> str | None:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return None

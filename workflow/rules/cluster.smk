# Before anything is submitted to SLURM: would the end of a job be noticed? The executor waits for ever for a job whose
# state it cannot learn, and says so only with --verbose.

import io
import re
import shutil
import subprocess
from contextlib import redirect_stderr

from snakemake.cli import get_profile_dir, parse_args

# The executor's interval between two questions grows to this many seconds while no job ends; a minute is to spare.
LONGEST_INTERVAL = 180
# Calls of Snakemake that run no job.
LOOKING = """dryrun touch unlock report lint list_rules list_target_rules list_changes list_input_changes
    list_params_changes list_untracked print_compilation dag rulegraph filegraph d3dag summary detailed_summary archive
    cleanup_metadata delete_all_output delete_temp_output generate_unit_tests""".split()


def submission():
    """What the command line and the profile of this call say, if it is one that submits to SLURM; else None."""
    if workflow.exec_mode != ExecMode.DEFAULT or workflow.resource_settings.nodes is None:
        return None
    try:
        with redirect_stderr(io.StringIO()):  # it would say once more which profile it reads
            _, call = parse_args(sys.argv[1:])
    except SystemExit:  # Snakemake is called as a library
        return None
    looks = any(getattr(call, name, None) for name in LOOKING)
    return None if looks or call.executor != "slurm" else call


def answer(*command):
    """What a command of SLURM prints, and how it failed, in one line, if it did."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return "", "there is no such program"
    except subprocess.TimeoutExpired:
        return "", "no answer within 30 seconds"
    last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    return done.stdout, last if done.returncode else ""


def check_cluster(call):
    """Refuse a cluster that cannot be submitted to, or whose finished jobs would not be noticed."""

    def setting(name, default):
        value = getattr(call, name, None)
        return value if isinstance(value, int | str) else default

    file = get_profile_dir(call.profile[-1])[1] if call.profile else "--executor slurm"
    if not shutil.which("sbatch"):
        refuse(
            f"{file}: there is no sbatch on this machine: call Snakemake on a login node of the cluster,"
            " or take --profile profiles/local"
        )
    text, failed = answer("scontrol", "show", "config")
    if failed:
        refuse(f"{file}: SLURM does not answer, `scontrol show config`: {failed}")
    config = dict(re.findall(r"^(\w+) *= (\S+)", text, re.MULTILINE))
    kept, age = config.get("AccountingStorageType", "(null)"), int(config.get("MinJobAge", 0))
    sacct = shutil.which("sacct") is not None
    accounting = sacct and kept not in ("accounting_storage/none", "(null)")
    command = setting("slurm_status_command", "sacct") if sacct else "squeue"  # as the executor does
    if command == "sacct" and not accounting:
        refuse(
            f"{file}: slurm-status-command: sacct needs an accounting database, and this cluster has none"
            f" (AccountingStorageType={kept}); set slurm-status-command: squeue there"
        )
    if command == "sacct":
        _, failed = answer("sacct", "--allocations", "--noheader", "--starttime=now")
        if failed:
            refuse(
                f"{file}: the accounting database does not answer, sacct: {failed}; or set slurm-status-command: squeue"
            )
    first = setting("slurm_init_seconds_before_status_checks", 40)
    longest = max(LONGEST_INTERVAL, setting("seconds_between_status_checks", 10))
    needed = max(3 * first, longest + 60)
    if command == "squeue" and age < needed:
        if age == 0 and not sacct:  # it never forgets a job
            return
        # The executor takes zero for a small number like any other, and asks sacct.
        why = f"forgets them after {age} s" if age else "never forgets them, which the executor misreads"
        remedy = (
            "set slurm-status-command: sacct there"
            if accounting
            else f"MinJobAge in slurm.conf must be {needed} or more"
        )
        if 3 * first > longest + 60:
            remedy += ", or slurm-init-seconds-before-status-checks smaller"
        refuse(
            f"{file}: slurm-status-command: squeue would miss the end of jobs, for this cluster {why}"
            f" (MinJobAge={age}); {remedy}"
        )


if (call := submission()) is not None:
    check_cluster(call)

"""The SLURM scripts of docs/cluster.md, run on this machine by a small `srun` that sets SLURM's variables."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from tiny_runs import write_data

REPOSITORY = Path(__file__).parents[1]
SRUN = """#!{python}
import os, subprocess, sys
number = int(os.environ["TEST_NTASKS"])
slurm = {{"SLURM_JOB_ID": os.environ["TEST_JOB"], "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(number)}}
tasks = [
    subprocess.Popen(sys.argv[1:], env=os.environ | slurm | {{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}})
    for i in range(number)
]
sys.exit(max(abs(task.wait()) for task in tasks))
"""


def script_under(heading: str) -> str:
    page = (REPOSITORY / "docs" / "cluster.md").read_text()
    return re.search(r"```bash\n(.*?)```", page.partition(f"## {heading}\n")[2], re.S)[1]


@pytest.mark.parametrize(
    ("heading", "tasks", "devices"), [("SLURM (sbatch), one node", 1, 2), ("SLURM (sbatch), several nodes", 2, 1)]
)
def test_the_script_trains(tmp_path, heading, tasks, devices):
    write_data(tmp_path / "data", tiny.write_folder(tmp_path / "source"))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text(SRUN.format(python=sys.executable))
    # The recipe of the page needs ImageNet weights and a GPU: the script runs with one that is small.
    small = f"--config=tests/tiny.py:bare --config.max_steps=2 --config.data.root={tmp_path / 'data'}"
    (programs / "mancs").write_text(f'#!/bin/sh\nexec {sys.executable} -m mancs_jax.cli "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    script = script_under(heading)
    for there, here in (
        ("--config=market ", f"{small} "),
        ("workdirs/market", str(tmp_path / "W")),
        ("--config.pretrained=resnet50.pth ", ""),
    ):
        assert there in script
        script = script.replace(there, here)
    flags = re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])
    job = str(os.getpid() % 4096 + (4096 if tasks > 1 else 0))
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "XLA_FLAGS": flags,
        "TEST_NTASKS": str(tasks),
        "TEST_JOB": job,
    }
    done = subprocess.run(["bash", "-e"], input=script, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("| Mancs") == 1  # process 0 prints
    assert (tmp_path / "W" / "report.html").is_file()
    start = json.loads((tmp_path / "W" / "run.json").read_text())["starts"][0]
    assert len(start["devices"]) == 2


def test_the_kubernetes_job_finds_its_service():
    import yaml  # which Orbax needs

    (block,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / "cluster.md").read_text(), re.DOTALL)
    service, job = yaml.safe_load_all(block)
    pods = job["spec"]["template"]["spec"]
    name = service["metadata"]["name"]
    assert pods["subdomain"] == name and service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    (command,) = pods["containers"][0]["args"]
    assert f"--coordinator={job['metadata']['name']}-0.{name}:" in command
    assert f"--num_processes={job['spec']['completions']} " in command and "--config.pretrained=/shared/" in command
    assert {of["name"] for of in pods["containers"][0]["volumeMounts"]} == {of["name"] for of in pods["volumes"]}

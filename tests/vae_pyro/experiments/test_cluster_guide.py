"""The guide to clusters agrees with the code."""

import ast
import inspect
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from vae_pyro.core import isolation
from vae_pyro.experiments.running import run_experiment

GUIDE = Path(__file__).parents[3] / "docs" / "cluster.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_scripts_of_the_guide_are_whole(tmp_path: Path) -> None:
    for number, text in enumerate(blocks("bash")):
        file = tmp_path / f"{number}.sh"
        file.write_text(text)
        done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len(blocks("bash")) == 5
    experiment, on_dask = (ast.parse(text) for text in blocks("python"))
    (call,) = [
        node
        for node in ast.walk(experiment)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "run_experiment"
    ]
    assert {keyword.arg for keyword in call.keywords} <= set(inspect.signature(run_experiment).parameters)
    assert "main('dask', cluster.scheduler_address)" in ast.unparse(on_dask)


def test_the_guide_asks_slurm_for_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very keywords of the guide make the script of a job with one dask thread and a GPU."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    jobqueue = pytest.importorskip("dask_jobqueue")
    for number, handler in handlers.items():
        signal.signal(number, handler)  # importing it sets its own
    monkeypatch.setenv("FIT_THREADS", "4")
    tree = ast.parse(blocks("python")[1])
    (call,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "SLURMCluster"
    ]
    keywords = {
        keyword.arg: eval(compile(ast.Expression(keyword.value), "guide", "eval"), {"os": os, "int": int})
        for keyword in call.keywords
    }
    with isolation.undisturbed(), jobqueue.SLURMCluster(**{**keywords, "log_directory": str(tmp_path)}) as cluster:
        job = cluster.job_script()
    for line in ("#SBATCH -p gpu", "#SBATCH --cpus-per-task=4", "#SBATCH --gpus=1", "#SBATCH -t 08:00:00"):
        assert line in job.splitlines()
    assert "--nthreads 1 " in job
    assert "--lifetime 465m" in job
    assert job.index("source /shared/venv/bin/activate") < job.index("dask_worker")

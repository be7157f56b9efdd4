"""Independent tasks in processes of this machine or of a cluster, where one that dies costs little."""

from vae_pyro.workers.process import claim_device, default_workers, exact_threads
from vae_pyro.workers.tasks import BACKENDS, Backend, Outcome, WorkInterruptedError, map_tasks

__all__ = [
    "BACKENDS",
    "Backend",
    "Outcome",
    "WorkInterruptedError",
    "claim_device",
    "default_workers",
    "exact_threads",
    "map_tasks",
]

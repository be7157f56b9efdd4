"""The report page of a search: its space, the best settings, its course, and the effect of the settings."""

from importlib.metadata import version
from pathlib import Path

from analysis.experiments.search.result import analyse_search, params_text
from analysis.experiments.search.sections import best_section, course_section, settings_section, space_section
from analysis.results.page import Page
from vae_pyro.data.facts import DataFacts
from vae_pyro.experiments.tuning.search import Search

_STATES = (("complete",), ("pruned",), ("failed",), ("unfinished", "running", "stopped"))


def write_search(search: Search, path: Path | None = None) -> Path:
    """Write the page of a search, as ``search.html`` into a folder (its own by default), and return the file.

    Raises:
        ValueError: no trial is complete.
    """
    path = search.path if path is None else path
    file = path / "search.html" if path.is_dir() else path
    search_page(search).write(file)
    return file


def search_page(search: Search, *, seed: int = 0) -> Page:
    """The page of a search.

    Args:
        search: with at least one complete trial.
        seed: seed of bootstrap samples and forests.

    Raises:
        ValueError: no trial is complete.
    """
    analysis, plan = analyse_search(search, seed=seed), search.plan
    facts = DataFacts.from_json(plan["facts"])
    counts = [f"{len(search.of_state(*states)):,} {states[0]}" for states in _STATES if search.of_state(*states)]
    sizes = facts.sizes
    return Page(
        f"{facts.name}: search over {', '.join(dimension.name for dimension in search.space)}",
        [space_section(search), best_section(analysis), course_section(search), settings_section(analysis)],
        facts={
            "Data": f"{facts.name}, {sizes['train']:,} for training, {sizes['validation']:,} for validation",
            "Observed": facts.space,
            "Trials": f"{len(search.trials):,}: {', '.join(counts)}",
            "Chosen": f"trial {search.best.number}: {params_text(search, search.best)}",
        },
        lead="Settings were chosen by the ELBO of the validation data. The test data were not used: not for fitting, "
        "not for pruning, not for the choice, and no estimate on this page comes from them.",
        provenance={
            "Seed": plan["seed"],
            "Sampler": f"TPE, the first {plan['num_random']} trials at random",
            "Pruner": f"median, after {plan['num_unpruned']} complete trials" if plan["prune"] else "none",
            "Fingerprint of the data": facts.fingerprint,
            **{name: version(name) for name in ("vae_pyro", "torch", "pyro-ppl", "optuna")},
        },
        subtitle="Search over the settings of a variational autoencoder",
    )

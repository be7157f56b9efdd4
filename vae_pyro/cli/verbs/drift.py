"""``vae-pyro drift``: have the data changed since a run was fitted?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vae_pyro.cli.console import print_line, print_verdicts, print_written
from vae_pyro.cli.options import SplitOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import require_ending

if TYPE_CHECKING:
    from analysis import Drift
    from vae_pyro.data.split import Split
    from vae_pyro.runs.folder import RunFolder

_CHANGED = 3  # 1 is an unforeseen error, 2 a refusal
_SHOWN = 16


@verb(
    Topic.CHECK,
    "vae-pyro drift runs/m new.npy --out drift.html",
    renamed={"--level": "--alpha", "--rows": "--max-data"},
)
def drift(
    reference: SplitOptions,
    data: Annotated[str, typer.Argument(help="New data: a name or path, all of it.")],
    permutations: Annotated[int, typer.Option(min=19, help="Relabellings of new and held-out data.")] = 999,
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.5, help="False-alarm rate.")] = 0.05,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the guide for each datum.")] = 100,
    max_data: Annotated[int, typer.Option(min=20, help="Random subset of this size of either, where larger.")] = 2000,
    out: Annotated[Path | None, typer.Option(help=".html for a page, .json for the estimates.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with code 3 where the data have changed.")] = False,
) -> None:
    """Test new data against a run's held-out data: by log p(x), by latents, by a classifier; name the changes."""
    import json

    from analysis import drift_test
    from vae_pyro.cli import opening

    if out is not None:
        require_ending(out, ".html", ".json")
    if reference.split == "train":
        raise ValueError(
            f"the model has seen the training data of {str(reference.run)!r}: it finds them likelier than new data of "
            "the same distribution, so that every test against them would find a change; choose test or validation"
        )
    folder, vae, held_out = reference.open_split()
    if _is_source(data, folder):
        raise ValueError(
            f"{data!r} is what the run was fitted on, training data included, which the model finds likelier than new "
            "data; name new data (to compare test with training data: vae-pyro report)"
        )
    _, _, new = opening.other_data(reference.run, data, reference.data_root, reference.device)
    if hasattr(vae.guide, "classify"):  # it infers classes: those known of the run's data are no property of new data
        held_out, new = (some.replace(y=None) for some in (held_out, new))
    found = drift_test(
        vae,
        held_out,
        new,
        num_permutations=permutations,
        alpha=alpha,
        num_draws=draws,
        max_data=max_data,
        seed=reference.seed,
    )
    summary = {
        **found.summary(),
        "run": str(reference.run),
        "data": data,
        "reference": reference.split,
        "seed": reference.seed,
    }
    if out is not None:
        _write(out, found, new, summary)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    else:
        print_line(str(found))
        print_verdicts(f"{data} against {reference.split} data of {reference.run}", found.verdicts)
        print_line(
            f"observed: {found.space}; unchanged data are called changed at a rate of {found.alpha:g}.", style="dim"
        )
        fitted = folder.config()["fit"]
        stopped = fitted.get("patience") is not None or fitted.get("epochs", 0) is None
        if reference.split == "validation" and stopped:
            print_line(
                "the fit was stopped by its validation data, which it finds a little likelier than new data; "
                "--split test is free of that",
                style="yellow",
            )
        if out is not None:
            print_written(out)
    if fail and found.drifted:
        raise typer.Exit(_CHANGED)


def _is_source(data: str, folder: "RunFolder") -> bool:
    source = folder.config()["data"].get("source")
    return source is not None and (
        data == source or (Path(data).exists() and Path(data).resolve() == Path(source).resolve())
    )


def _write(out: Path, found: "Drift", new: "Split", summary: dict[str, Any]) -> None:
    import numpy as np
    import torch

    from vae_pyro.core.files import write_json
    from vae_pyro.runs.folder import provenance

    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".json":
        write_json(out, summary)
        return
    from analysis import drift_page

    surprising = found.ids_new[found.surprising(_SHOWN)]
    ids = new.ids.cpu().numpy()
    order = np.argsort(ids, kind="stable")
    places = order[np.searchsorted(ids[order], surprising)]
    x, given = new.batch(torch.from_numpy(places))
    if "mask" in given:
        x = torch.where(given["mask"], x, torch.nan)
    made = provenance()
    page = drift_page(
        found,
        x.cpu().numpy(),
        {"run": summary["run"], "data": summary["data"], "compared with": f"{summary['reference']} data"},
        provenance={
            "seed": summary["seed"],
            **{str(name): str(version) for name, version in made["versions"].items()},
            "git revision": made["git_revision"] or "unknown",
        },
    )
    page.write(out)

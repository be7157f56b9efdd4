"""``vae-pyro drift``: have the data changed since a run was fitted?"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vae_pyro.cli.console import DataRoot, Device, Run, Seed, console

if TYPE_CHECKING:
    from analysis.monitoring.drift import Drift
    from vae_pyro.data.split import Split
    from vae_pyro.runs.folder import RunFolder

_CHANGED = 3  # 1 is an error that nobody foresaw, 2 a refusal
_SHOWN = 16
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


def drift(
    run: Run,
    data: Annotated[str, typer.Argument(help="New data: a name or path, all of it.")],
    split: Annotated[
        str, typer.Option("--split", help="What they are compared with: test or validation data of the run.")
    ] = "test",
    permutations: Annotated[int, typer.Option(min=19, help="Relabellings of new and held-out data.")] = 999,
    level: Annotated[float, typer.Option(min=0.0001, max=0.5, help="False-alarm rate.")] = 0.05,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the guide for each datum.")] = 100,
    rows: Annotated[int, typer.Option(min=20, help="Take at most so many of either, at random.")] = 2000,
    out: Annotated[Path | None, typer.Option(help=".html for a page, .json for figures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with code 3 where the data have changed.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Test new data against a run's held-out data: by log p(x), by latents, by a classifier; say what moved."""
    import json

    from analysis.monitoring.drift import drift_test
    from vae_pyro.cli.opening import open_run, other_data

    if out is not None and out.suffix not in (".html", ".json"):
        raise ValueError(f"--out {str(out)!r}: the ending chooses the format, .html or .json")
    folder, vae, reference, _ = open_run(run, _held_out(run, split), data_root, device)
    if _is_source(data, folder):
        raise ValueError(
            f"{data!r} is what the run was fitted on, training data included, which the model finds likelier than new "
            "data; name new data (to see whether test and training data are alike: vae-pyro report)"
        )
    _, _, new = other_data(run, data, data_root, device)
    if hasattr(vae.guide, "classify"):  # classes are inferred: those known of the run's data say nothing of new ones
        # Streamed data have none, and cannot be told so.
        reference, new = (some if some.y is None else replace(some, y=None) for some in (reference, new))
    found = drift_test(
        vae, reference, new, num_permutations=permutations, level=level, num_draws=draws, max_rows=rows, seed=seed
    )
    figures = {**found.summary(), "run": str(run), "data": data, "reference": split, "seed": seed}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(out, found, new, figures)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
    else:
        _show(found, run, data, split)
        if split == "validation" and folder.config()["fit"].get("patience") is not None:
            console.print(
                "the fit was stopped by its validation data, which are a little likelier than new data for it; --split "
                "test has none of that",
                style="yellow",
                highlight=False,
            )
        if out is not None:
            console.print(f"wrote {escape(str(out))}", highlight=False)
    if fail and found.drifted:
        raise typer.Exit(_CHANGED)


def _held_out(run: Path, split: str) -> str:
    """The split, where a test against it is one."""
    if split == "train":
        raise ValueError(
            f"the model has seen the training data of {str(run)!r}: it finds them likelier than new data of the same "
            "distribution, so that every test against them would find a change; choose test or validation"
        )
    return split


def _is_source(data: str, folder: "RunFolder") -> bool:
    source = folder.config()["data"].get("source")
    return source is not None and (
        data == source or (Path(data).exists() and Path(data).resolve() == Path(source).resolve())
    )


def _show(found: "Drift", run: Path, data: str, split: str) -> None:
    from analysis.results.estimate import plus_minus

    console.print(escape(str(found)), highlight=False)
    table = Table("", "question", "figure", "wanted", title=escape(f"{data} against {split} data of {run}"))
    for verdict in found.verdicts:
        table.add_row(
            f"[{_COLOURS[verdict.outcome]}]{verdict.outcome}[/]",
            escape(verdict.question),
            escape(plus_minus(verdict.figure, verdict.error, verdict.unit)),
            escape(verdict.threshold),
        )
    console.print(table)
    console.print(
        f"observed: {escape(found.space)}; unchanged data are called changed at a rate of {found.level:g}.", style="dim"
    )


def _write(out: Path, found: "Drift", new: "Split", figures: dict[str, Any]) -> None:
    import numpy as np
    import torch

    from vae_pyro.core.files import write_json
    from vae_pyro.runs.folder import provenance

    if out.suffix == ".json":
        write_json(out, figures)
        return
    from analysis.monitoring.drift_page import drift_page

    wanted = found.ids_new[found.surprising(_SHOWN)]
    ids = new.ids.cpu().numpy()
    order = np.argsort(ids, kind="stable")
    places = order[np.searchsorted(ids[order], wanted)]
    x, given = new.batch(torch.from_numpy(places))
    if "mask" in given:
        x = torch.where(given["mask"], x, torch.nan)
    made = provenance()
    page = drift_page(
        found,
        x.cpu().numpy(),
        {"run": str(figures["run"]), "data": str(figures["data"]), "compared with": f"{figures['reference']} data"},
        provenance={
            "seed": figures["seed"],
            **{str(name): str(version) for name, version in made["versions"].items()},
            "git revision": made["git_revision"] or "unknown",
        },
    )
    page.write(out)

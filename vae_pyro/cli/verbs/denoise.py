"""``vae-pyro denoise``: the clean signal behind noisy data by a run's noise model, with its uncertainty."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from vae_pyro.cli.console import print_line, print_verdicts, print_written
from vae_pyro.cli.options import DataOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import ARRAYS, PICTURE, require_ending, write_arrays, write_picture

if TYPE_CHECKING:
    import numpy as np

    from analysis.tasks.denoising.filters import TunedFilter
    from vae_pyro.applications.denoising_result import Denoised
    from vae_pyro.data.split import Split
    from vae_pyro.models.vae import VAE
    from vae_pyro.runs.folder import RunFolder

_PICTURED = 10
_WRITTEN = ("mean", "sd", "lower", "upper", "mean_se", "effective_sample_size")


@dataclass(frozen=True)
class TruthOptions:
    """Clean data, where they are known, and what a comparison with them takes."""

    panel: ClassVar[str] = "Clean data, to score the estimates"

    clean: Annotated[
        str | None, typer.Option(help="Name or path of the clean data, row by row those of the noisy source.")
    ] = None
    data_range: Annotated[
        float | None, typer.Option(help="Full intensity of clean data, for the PSNR; their maximum if not given.")
    ] = None
    filters: Annotated[
        int,
        typer.Option(
            min=0, help="Tune scikit-image's filters on this many of the first images; the others are scored."
        ),
    ] = 0

    def __post_init__(self) -> None:
        if self.clean is None and (self.data_range is not None or self.filters):
            raise ValueError("--data-range and --filters compare with clean data; name these with --clean")


@verb(Topic.USE, "vae-pyro denoise runs/n noisy.npy --out clean.npz")
def denoise(
    source: DataOptions,
    truth: TruthOptions,
    out: Annotated[
        Path, typer.Option(help=".npz for mean, sd, lower, upper, mean_se, x, id; .png for pictures of the first ten.")
    ],
    draws: Annotated[int, typer.Option(min=2, help="Draws of z for each datum.")] = 500,
    level: Annotated[float, typer.Option(help="Probability of the intervals from lower to upper.")] = 0.9,
) -> None:
    """Posterior mean, standard deviation and interval of the clean signal; with --clean, their quality."""
    require_ending(out, PICTURE, ARRAYS)
    from analysis import check_denoising
    from vae_pyro.applications.denoising import denoise as infer
    from vae_pyro.applications.denoising import noise_of
    from vae_pyro.core.isolation import derive_seed

    folder, vae, noisy = source.open_data()
    noise_of(vae)
    limit = source.limit
    if out.suffix == PICTURE and truth.clean is None:  # a comparison takes more data than a picture
        limit = min(limit or _PICTURED, _PICTURED)
    clean = None if truth.clean is None else _clean(folder, truth.clean, source, noisy)[:limit]
    noisy = (noisy if limit is None else noisy.take(slice(limit))).fixed(derive_seed(source.seed, 0))
    if clean is None:
        made = infer(vae, noisy, num_draws=draws, level=level, seed=source.seed)
        _write(out, vae, noisy, made)
        print_line(str(made))
    else:
        tuning = noisy.take(slice(truth.filters)).batch(slice(None), vae.dtype)[0].cpu().numpy()
        noisy = noisy.take(slice(truth.filters, None))
        check = check_denoising(
            vae,
            noisy,
            clean[truth.filters :],
            data_range=truth.data_range or float(clean.max()),
            validation=(tuning, clean[: truth.filters]) if truth.filters else None,
            level=level,
            num_draws=draws,
            seed=source.seed,
        )
        _write(out, vae, noisy, check.denoised, clean[truth.filters :], check.best_filter and check.best_filter[0])
        print_line(str(check))
        print_verdicts(f"{source.described} against {truth.clean}", check.verdicts)
    print_written(out)


def _clean(folder: "RunFolder", name: str, source: DataOptions, noisy: "Split") -> "np.ndarray[Any, Any]":
    """The clean data of each noisy datum: read, and split where these are the run's own, as the noisy data are.

    Raises:
        ValueError: other rows than those of the noisy data.
    """
    from vae_pyro.data.dataset import load_all

    config = folder.data_config(source.data_root).replace(
        source=name, binarize="none", dequantize=False, given_labels=None, labelled_share=None
    )
    if source.data is None:
        clean = config.load().split(source.split)
    else:
        clean = load_all(config.replace(stream=None), folder.facts())
    if clean.ids.tolist() != noisy.ids.tolist():
        raise ValueError(
            f"--clean {name!r} gives {len(clean):,} data for {len(noisy):,} noisy ones, or other rows; write one for "
            "each row of the noisy source, in its order"
        )
    return clean.batch(slice(None))[0].numpy()


def _write(
    out: Path,
    vae: "VAE",
    noisy: "Split",
    made: "Denoised",
    clean: "np.ndarray[Any, Any] | None" = None,
    best: "TunedFilter | None" = None,
) -> None:
    import torch

    from vae_pyro.applications.denoising import noise_of

    x, given = noisy.batch(slice(None), vae.dtype)
    seen = x.cpu()
    if "mask" in given:
        seen = torch.where(given["mask"].cpu(), seen, torch.nan)
    if out.suffix == ARRAYS:
        arrays = {name: getattr(made, name) for name in _WRITTEN}
        write_arrays(out, {**arrays, "x": seen.numpy(), "id": made.ids, "level": made.level, "clean": clean})
        return
    from analysis.tasks.denoising.plot import plot_denoised

    first = slice(_PICTURED)
    shown = noise_of(vae).rescaled(seen[first]).numpy()
    write_picture(
        out,
        plot_denoised(
            shown,
            made.mean[first],
            made.sd[first],
            clean=None if clean is None else clean[first],
            others=None if best is None else {best.name: best(shown)},
        ),
    )

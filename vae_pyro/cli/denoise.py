"""``vae-pyro denoise``: the clean signal behind noisy data, as a run's stated noise has it, with its uncertainty."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from vae_pyro.cli.console import DataRoot, Device, Run, Seed, SplitName, console

if TYPE_CHECKING:
    import numpy as np

    from vae_pyro.applications.denoising import Denoised
    from vae_pyro.models.vae import VAE

_ARRAYS, _PICTURE, _PICTURED = ".npz", ".png", 10


def denoise(
    run: Run,
    data: Annotated[str | None, typer.Argument(help="Other data than the run's: a name or path, all of it.")] = None,
    out: Annotated[
        Path, typer.Option(help=".npz for mean, sd, lower, upper, mean_se, x, id; .png for pictures of the first ten.")
    ] = ...,  # type: ignore[assignment]
    draws: Annotated[int, typer.Option(min=2, help="Draws of z for each datum.")] = 500,
    level: Annotated[float, typer.Option(help="What the intervals from lower to upper hold.")] = 0.9,
    split: SplitName = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="The first data only.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Posterior mean, standard deviation and interval of the clean signal behind noisy data."""
    from vae_pyro.applications.denoising import denoise as infer
    from vae_pyro.applications.denoising import noise_of
    from vae_pyro.cli.opening import chosen_data
    from vae_pyro.core.isolation import derive_seed

    if out.suffix not in (_ARRAYS, _PICTURE):
        raise ValueError(f"--out {str(out)!r}: the ending chooses the format, {_PICTURE} or {_ARRAYS}")
    _, vae, chosen = chosen_data(run, data, split, data_root, device)
    noise_of(vae)
    shown = _PICTURED if out.suffix == _PICTURE else None
    if limit is not None or shown is not None:
        chosen = chosen.take(slice(min(limit or len(chosen), shown or len(chosen))))
    chosen = chosen.fixed(derive_seed(seed, 0))
    made = infer(vae, chosen, num_draws=draws, level=level, seed=seed)
    x, given = chosen.batch(slice(None), vae.dtype)
    noisy = x.cpu().numpy()
    if "mask" in given:
        noisy[~given["mask"].cpu().numpy()] = float("nan")
    out.parent.mkdir(parents=True, exist_ok=True)
    (_write_picture if shown else _write_arrays)(out, made, noisy, vae)
    console.print(escape(str(made)), highlight=False)
    console.print(f"wrote {escape(str(out))}", highlight=False)


def _write_arrays(out: Path, made: "Denoised", noisy: "np.ndarray[Any, Any]", vae: "VAE") -> None:
    import io

    import numpy as np

    from vae_pyro.core.files import write_atomically

    names = ("mean", "sd", "lower", "upper", "mean_se", "effective_sample_size")
    content = io.BytesIO()
    np.savez_compressed(
        content, x=noisy, id=made.ids, level=made.level, **{name: getattr(made, name) for name in names}
    )
    write_atomically(out, content.getvalue())


def _write_picture(out: Path, made: "Denoised", noisy: "np.ndarray[Any, Any]", vae: "VAE") -> None:
    import torch

    from analysis.plotting.denoising import plot_denoised
    from analysis.plotting.style import save
    from vae_pyro.applications.denoising import noise_of

    seen = noise_of(vae).rescaled(torch.from_numpy(noisy)).numpy()
    save(plot_denoised(seen, made.mean, made.sd), out)

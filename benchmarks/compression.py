"""``python -m benchmarks.compression``: bits per dimension of binarised MNIST, coded and decoded.

The first test images, binarised by one fixed draw, are compressed with an ``mlp-400-20`` that is fitted here, or with
the model of a run folder, and decoded again. The table compares minus the ELBO, the code length, and the sizes under
general-purpose compressors.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks import common
from vae_pyro import VAE, Dataset, FitConfig, RunFolder, VAEConfig, fit, load_data
from vae_pyro.applications.compression.archive import read_archive
from vae_pyro.applications.compression.codec import compress, decompress
from vae_pyro.applications.compression.rates import CompressionRates, compression_rates
from vae_pyro.core.isolation import derive_seed
from vae_pyro.models.presets import preset

PRESET = "mlp-400-20"


def fitted(data: Dataset, epochs: int, seed: int) -> VAE:
    """The preset, fitted for some epochs."""
    chosen = preset(PRESET)
    vae = VAE(VAEConfig(**{"x_shape": data.x_shape, **chosen.model}), seed=seed)
    return fit(vae, data.train, config=FitConfig(**{**chosen.fit, "epochs": epochs}), seed=seed).vae


def round_trip(vae: VAE, data: Dataset, count: int, draws: int, seed: int) -> tuple[CompressionRates, dict[str, Any]]:
    """Compress the first test images, write, read and decode them.

    Raises:
        RuntimeError: the decoded images differ.
    """
    split = data.test.take(slice(0, count)).fixed(derive_seed(seed, 0))
    begin = perf_counter()
    archive = compress(vae, split, seed=seed)
    coded = perf_counter() - begin
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mnist.vpz"
        archive.write(path)
        begin = perf_counter()
        again = decompress(vae, read_archive(path))
        decoded = perf_counter() - begin
    stored = split.stored(slice(None)).numpy()
    if not np.array_equal(again, stored):
        raise RuntimeError(f"{int((again != stored).any(axis=(1, 2, 3)).sum())} images were decoded wrongly")
    found = compression_rates(vae, split, archive, num_draws=draws, seed=seed)
    times = {"compress": coded / len(split), "decompress": decoded / len(split), "exact": True}
    return found, times


def table(found: CompressionRates, times: dict[str, Any]) -> str:
    """The rates as Markdown."""
    rows = [[name, f"{rate:.4f}"] for name, rate in found.rows()]
    text = common.markdown_table(["code", "bits per dimension"], rows)
    coded, decoded = (1e3 * times[name] for name in ("compress", "decompress"))
    return (
        f"{text}\n\n{found.length.num_data:,} images decoded bit for bit; {coded:.2f} ms an image to compress, "
        f"{decoded:.2f} ms to decompress, on one thread. Net {found.excess:+.2%} from minus the ELBO, around which "
        f"other draws of the latents move it by {found.draw_se / found.elbo:.2%}."
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run folder on MNIST; without it a model is fitted here")
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=200, help="of the ELBO, for each image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=common.HERE / "results" / "compression.json")
    given = parser.parse_args()
    root = {} if given.data_root is None else {"root": str(given.data_root)}
    data = load_data("mnist", binarize="dynamic", **root)
    if given.run is None:
        begin = perf_counter()
        vae = fitted(data, given.epochs, given.seed)
        print(f"fitted {PRESET} for {given.epochs} epochs in {common.duration(perf_counter() - begin)}", flush=True)
    else:
        vae = RunFolder(given.run).load_model()
    found, times = round_trip(vae, data, given.images, given.draws, given.seed)
    machine = common.machine()
    result = {
        "machine": machine,
        "revision": common.revision(),
        "model": "run folder" if given.run else PRESET,
        "epochs": None if given.run else given.epochs,
        "threads": torch.get_num_threads(),
        "seconds_per_image": times,
        "bits_per_dimension": found.summary(),
    }
    common.write_json(given.out, result)
    print(table(found, times))
    print(f"\n{common.machine_line(machine)}\nwrote {given.out}")


if __name__ == "__main__":
    main()

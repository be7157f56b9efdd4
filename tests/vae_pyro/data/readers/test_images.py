"""Folders of images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.vae_pyro.data.makers import image_folder
from vae_pyro import load_data
from vae_pyro.core.isolation import seeded
from vae_pyro.data.readers.images import read_image


def test_folders_of_images(tmp_path: Path) -> None:
    with seeded(0):
        pixels = torch.randint(0, 256, (12, 5, 6), dtype=torch.uint8).numpy()
    for index, image in enumerate(pixels):
        folder = tmp_path / "pictures" / ("even" if index % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    data = load_data(tmp_path / "pictures")
    assert data.x_shape == (1, 5, 6)
    assert data.facts.classes == ("even", "odd")
    first_even = data.train.take(data.train.labels == 0)
    stored = pixels[[0, 2, 4, 6, 8, 10]]
    np.testing.assert_array_equal(first_even.values[0, 0].numpy(), stored[int(first_even.ids[0])])
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "pictures" / "odd" / "99.png")
    with pytest.raises(ValueError, match=r"images differ: .* is \(1, 5, 6\), .* is \(1, 5, 7\)"):
        load_data(tmp_path / "pictures")
    (tmp_path / "pictures" / "odd" / "99.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="cannot read the image .*99.png"):
        load_data(tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no image"):
        load_data(tmp_path / "empty")


def test_colour_images(tmp_path: Path) -> None:
    for index in range(6):
        Image.new("RGB", (4, 3), (index, 2 * index, 255)).save(tmp_path / f"{index}.png")
    data = load_data(tmp_path)
    assert data.x_shape == (3, 3, 4)
    x, _ = data.test.batch(slice(0, 1))
    torch.testing.assert_close(x[0, 2], torch.ones(3, 4))


def test_deep_images_keep_their_levels(tmp_path: Path) -> None:
    for index in range(6):
        Image.fromarray(np.full((3, 3), 10_000 * index, np.uint16)).save(tmp_path / f"{index}.png")
    data = load_data(tmp_path, validation_fraction=0)
    x, _ = data.train.batch(slice(None))
    np.testing.assert_allclose(x[:, 0, 0, 0].numpy(), 10_000 * data.train.ids / 65535, rtol=1e-6)


def test_broken_images(tmp_path: Path) -> None:
    store = image_folder(tmp_path)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "pictures" / "odd" / "01.png")
    with pytest.raises(ValueError, match=r"images differ: .*00.png' is \(1, 5, 6\), .*01.png' is \(1, 5, 7\)"):
        store.read(0, 60)
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(tmp_path / "pictures" / "odd" / "01.png")
    with pytest.raises(ValueError, match=r"00.png' has 8 bits and .*01.png' 16: .* bring them to one depth"):
        store.read(0, 60)
    (tmp_path / "pictures" / "odd" / "01.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="cannot read the image .*01.png"):
        store.read(0, 60)


def _pictures(folder: Path, count: int = 12) -> None:
    folder.mkdir()
    for index in range(count):
        Image.fromarray(np.full((6, 6), 10 * index, np.uint8)).save(folder / f"{index:02d}.png")


@pytest.mark.parametrize("ending", ["gif", "tiff", "webp", "png"])
def test_a_file_of_several_frames_is_refused(ending: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 6, 3), 60 * index, np.uint8)) for index in range(3)]
    folder = tmp_path / "p"
    folder.mkdir()
    frames[0].save(folder / f"a.{ending}", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=f"a.{ending}' has 3 frames"):
        load_data(folder)


def test_the_contents_decide_which_formats_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pictures(tmp_path / "p")
    Image.new("RGB", (6, 6)).save(tmp_path / "page.eps")
    (tmp_path / "p" / "00.png").write_bytes((tmp_path / "page.eps").read_bytes())
    started: list[object] = []
    monkeypatch.setattr("subprocess.check_call", lambda *arguments, **_: started.append(arguments))
    with pytest.raises(ValueError, match="cannot read the image .*00.png"):
        load_data(tmp_path / "p")
    assert not started


def test_images_of_too_many_pixels_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pictures(tmp_path / "p")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(
        ValueError, match=r"cannot read the image .*00.png': Image size \(36 pixels\).*smaller"
    ) as error:
        load_data(tmp_path / "p")
    assert "\n" not in str(error.value)


def test_cut_images_are_one_line(tmp_path: Path) -> None:
    _pictures(tmp_path / "p")
    whole = (tmp_path / "p" / "03.png").read_bytes()
    for length in range(8, 42, 3):
        (tmp_path / "p" / "03.png").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot read the image .*03.png"):
            load_data(tmp_path / "p")


def test_photographs_stand_upright_and_transparent_pixels_are_dark(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=turned)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(pixels, -1).transpose(2, 0, 1))
    opacity = np.full((5, 7, 1), 255, np.uint8)
    opacity[0], opacity[1] = 0, 102
    Image.fromarray(np.concatenate([pixels, opacity], 2)).save(tmp_path / "clear.png")
    seen = read_image(tmp_path / "clear.png").transpose(1, 2, 0)
    np.testing.assert_array_equal(seen[2:], pixels[2:])
    assert not seen[0].any()
    np.testing.assert_allclose(seen[1], pixels[1] * 0.4, atol=1)
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png", transparency=int(pixels[3, 3, 0]))
    assert read_image(tmp_path / "grey.png")[0, 3, 3] == 0

"""The data sets and their fixed splits, as flat uint8 tensors on the CPU.

| name | pixels | train / validation / test | source |
|---|---|---|---|
| ``mnist`` | 28 x 28, 0 to 255 | 50,000 / 10,000 / 10,000 | LeCun et al. 1998, by torchvision |
| ``fashion_mnist`` | 28 x 28, 0 to 255 | 50,000 / 10,000 / 10,000 | Xiao et al. 2017, by torchvision |
| ``binarized_mnist`` | 28 x 28, 0 or 255 | 50,000 / 10,000 / 10,000 | MNIST sampled once, packed bits |
| ``digits`` | 8 x 8, 0 to 255 | 1,200 / 297 / 300 | UCI Optdigits, by scikit-learn |
| ``omniglot`` | 28 x 28, 0 to 255 | 23,000 / 1,345 / 8,070, or as drawn | Lake et al. 2015, see ``omniglot`` |
| ``celeba`` | 64 x 64 x 3, 0 to 255 | 162,770 / 19,867 / 19,962, or a subset | Liu et al. 2015, official partition |

No split is shuffled: each keeps the order of the source. Everything that
can go wrong with the files raises ``UsageError`` with one line that names the file or directory and says what
to do.
"""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from argmax_vae.data.images import Dataset, Images
from argmax_vae.data.mnist import PUBLISHED, _extracted, load_binarized_mnist, load_fashion_mnist, load_mnist
from argmax_vae.errors import UsageError
from argmax_vae.plugins import BROUGHT, Registry, told


def is_present(name: str, directory: Path) -> bool:
    """Whether the data set ``name`` can be loaded from ``directory`` without a download."""
    folder = Path(directory).expanduser()
    if name in PUBLISHED:
        return _extracted(PUBLISHED[name], folder / PUBLISHED[name] / "raw")
    return name in ("digits", *DATASETS.outside) or folder.is_dir()


def load_dataset(name: str, directory: Path, attributes: Sequence[str] | None = None) -> Dataset:
    """Load the data set ``name``, one of ``DATASETS``, from ``directory``, downloading what is not there yet.

    ``attributes`` are those that label the images of ``celeba``, by default ``celeba.ATTRIBUTES``; no other data
    set has any.

    Raises ``UsageError`` for an unknown name, for attributes that the data set does not have, and for files that
    are missing, damaged or cannot be had.
    """
    if name not in DATASETS:
        nearest = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0)[0]
        raise UsageError(f"unknown data set {name!r}; allowed: {', '.join(DATASETS)}; nearest: {nearest}")
    folder = Path(directory).expanduser()
    if name in DATASETS.outside:
        return load_outside(name, folder)
    if attributes is None:
        return DATASETS[name](folder)
    if name != "celeba":
        raise UsageError(f"data set {name!r} has no attributes, but was given {list(attributes)}: give them to celeba")
    return _load_celeba(folder, attributes)


def load_outside(name: str, folder: Path) -> Dataset:
    """Load a data set of another package. Raises ``UsageError`` when that fails, or gives what is none."""
    what = f"data={name} of the package {BROUGHT[f'data={name}']}"
    try:
        dataset = DATASETS[name](folder)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{what} cannot be loaded from {folder} ({told(error)})") from None
    if not isinstance(dataset, Dataset):
        raise UsageError(f"{what} must be an argmax_vae.Dataset; its function returned {type(dataset).__name__}")
    if fault := dataset.fault():
        raise UsageError(f"{what}: {fault}")
    return dataset


def load_digits(directory: Path) -> Dataset:
    """Load the 1,797 digits that scikit-learn ships, their values 0 to 16 scaled to 0 to 255.

    ``directory`` is not read. Rounding sends the middle value 8 to 128, so a threshold at one half keeps it.
    """
    from sklearn.datasets import load_digits as load_shipped

    shipped = load_shipped()
    pixels = torch.from_numpy(np.rint(shipped.data * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(shipped.target.astype(np.int64))
    sizes = [1200, 297, 300]
    train, validation, test = map(Images, pixels.split(sizes), labels.split(sizes))
    return Dataset("digits", (1, 8, 8), train, validation, test, binary=False)


def _load_celeba(directory: Path, attributes: Sequence[str] | None = None) -> Dataset:
    """Load CelebA from ``directory``, by the module that builds on this one."""
    from argmax_vae.data import celeba

    return celeba.load_celeba(directory, celeba.ATTRIBUTES if attributes is None else attributes)


def _load_omniglot(directory: Path) -> Dataset:
    """Load Omniglot from ``directory``, by the module that builds on this one."""
    from argmax_vae.data import omniglot

    return omniglot.load_omniglot(directory)


OWN: dict[str, Callable[[Path], Dataset]] = {
    "mnist": load_mnist,
    "fashion_mnist": load_fashion_mnist,
    "binarized_mnist": load_binarized_mnist,
    "digits": load_digits,
    "omniglot": _load_omniglot,
    "celeba": _load_celeba,
}
DATASETS = Registry("data", OWN, callable, "a function from a directory to a Dataset")
"""Those of this package, then those of other installed packages (`argmax_vae.plugins`)."""

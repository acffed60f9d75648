"""Images: the data sets, their fixed splits, and the ways to make their pixels binary.

Importing this package loads neither torchvision nor scikit-learn: the loader that needs one imports it.
"""

from argmax_vae.data.binarization import BINARIZATIONS, fixed_sample, prepare, threshold
from argmax_vae.data.datasets import DATASETS, Dataset, Images, load_dataset

__all__ = [
    "BINARIZATIONS",
    "DATASETS",
    "Dataset",
    "Images",
    "fixed_sample",
    "load_dataset",
    "prepare",
    "threshold",
]

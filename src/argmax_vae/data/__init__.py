"""Images: the data sets, their fixed splits, and the ways to make their pixels binary.

Importing this package loads neither torchvision nor Pillow nor scikit-learn: the loader that needs one imports it.
"""

from argmax_vae.data.binarization import BINARIZATIONS, fixed_sample, prepare, threshold
from argmax_vae.data.celeba import ATTRIBUTES, combination_names
from argmax_vae.data.datasets import DATASETS, is_present, load_dataset
from argmax_vae.data.images import Dataset, Images

__all__ = [
    "ATTRIBUTES",
    "BINARIZATIONS",
    "DATASETS",
    "Dataset",
    "Images",
    "combination_names",
    "fixed_sample",
    "is_present",
    "load_dataset",
    "prepare",
    "threshold",
]

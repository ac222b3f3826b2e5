"""Data sets, loaders and readers of files, in NumPy alone: what comes out goes to any device."""

from wgpu_nn.data.dataset import ArrayDataset, Dataset, InMemory, in_memory, mapped, split, subset
from wgpu_nn.data.idx import read_idx
from wgpu_nn.data.images import read_digit
from wgpu_nn.data.loader import DataLoader
from wgpu_nn.data.mnist import Digits, fetch_mnist, load_digits_npz, load_mnist

__all__ = [
    "ArrayDataset",
    "DataLoader",
    "Dataset",
    "Digits",
    "InMemory",
    "fetch_mnist",
    "in_memory",
    "load_digits_npz",
    "load_mnist",
    "mapped",
    "read_digit",
    "read_idx",
    "split",
    "subset",
]

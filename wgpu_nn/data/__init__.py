"""Data sets, loaders and readers of files, in NumPy alone: what comes out goes to any device."""

from wgpu_nn.data.arrow import ParquetRows, read_parquet
from wgpu_nn.data.cifar import CIFAR10, CIFAR100, Cifar, fetch_cifar10, fetch_cifar100, load_cifar
from wgpu_nn.data.coco import CocoBoxes
from wgpu_nn.data.collate import PadCollate, stacked
from wgpu_nn.data.dataset import (
    ArrayDataset,
    Dataset,
    InMemory,
    Labelled,
    Source,
    in_memory,
    labels_of,
    mapped,
    split,
    subset,
)
from wgpu_nn.data.decode import read_image, read_mask
from wgpu_nn.data.folders import ImageFolder, MaskFolder, TextFolder
from wgpu_nn.data.idx import read_idx
from wgpu_nn.data.images import read_digit
from wgpu_nn.data.loader import DataLoader
from wgpu_nn.data.mnist import Digits, fetch_fashion_mnist, fetch_mnist, load_digits_npz, load_mnist
from wgpu_nn.data.rows import BadRow, Checked, CsvRows, JsonRows, Rows
from wgpu_nn.data.sampling import Sampler, WeightedSampler
from wgpu_nn.data.sqlite import SqliteDataset, SqliteRows, read_sqlite
from wgpu_nn.data.stream import (
    ByEpoch,
    Selective,
    StreamLoader,
    filtered_stream,
    mapped_stream,
    prefetched,
    shuffled_stream,
)
from wgpu_nn.data.tables import Table, read_csv, read_jsonl
from wgpu_nn.data.transforms import cached, permuted, sampled, windowed

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "ArrayDataset",
    "BadRow",
    "ByEpoch",
    "Checked",
    "Cifar",
    "CocoBoxes",
    "CsvRows",
    "DataLoader",
    "Dataset",
    "Digits",
    "ImageFolder",
    "InMemory",
    "JsonRows",
    "Labelled",
    "MaskFolder",
    "PadCollate",
    "ParquetRows",
    "Rows",
    "Sampler",
    "Selective",
    "Source",
    "SqliteDataset",
    "SqliteRows",
    "StreamLoader",
    "Table",
    "TextFolder",
    "WeightedSampler",
    "cached",
    "fetch_cifar10",
    "fetch_cifar100",
    "fetch_fashion_mnist",
    "fetch_mnist",
    "filtered_stream",
    "in_memory",
    "labels_of",
    "load_cifar",
    "load_digits_npz",
    "load_mnist",
    "mapped",
    "mapped_stream",
    "permuted",
    "prefetched",
    "read_csv",
    "read_digit",
    "read_idx",
    "read_image",
    "read_jsonl",
    "read_mask",
    "read_parquet",
    "read_sqlite",
    "sampled",
    "shuffled_stream",
    "split",
    "stacked",
    "subset",
    "windowed",
]

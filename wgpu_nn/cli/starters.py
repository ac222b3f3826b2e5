"""Configs to start from, for ``wgpu-nn train --init``: valid as they are, but for the paths of data."""

from __future__ import annotations

MNIST = """{
  "data": {
    "kind": "mnist",
    "path": "examples/mnist/mnist10k.npz"
  },
  "model": {
    "kind": "cnn",
    "hidden_size": 512,
    "dropout": 0.5
  },
  "optimizer": {
    "kind": "adam",
    "lr": 0.001
  },
  "metrics": [
    "accuracy",
    "confusion",
    {
      "kind": "f1",
      "average": "macro"
    }
  ],
  "monitor": "accuracy",
  "epochs": 10,
  "batch_size": 64
}
"""
CSV = """{
  "data": {
    "kind": "csv",
    "path": "data.csv",
    "target": "class",
    "valid": 0.2,
    "stratify": true
  },
  "model": {
    "kind": "mlp",
    "hidden": [64, 64],
    "dropout": 0.1
  },
  "optimizer": {
    "kind": "adamw",
    "lr": 0.001
  },
  "metrics": ["accuracy", "confusion", "f1"],
  "monitor": "loss",
  "epochs": 50,
  "batch_size": 32,
  "early_stopping": {
    "patience": 10
  }
}
"""
IMAGES = """{
  "data": {
    "kind": "images",
    "path": "images",
    "size": [32, 32],
    "channels": 1,
    "valid": 0.2,
    "stratify": true
  },
  "model": {
    "kind": "cnn",
    "hidden_size": 256
  },
  "optimizer": {
    "kind": "adamw",
    "lr": 0.001
  },
  "schedule": {
    "kind": "cosine",
    "warmup": 10
  },
  "augment": ["flip", {"kind": "crop", "padding": 4}],
  "metrics": ["accuracy", "confusion"],
  "monitor": "accuracy",
  "epochs": 20,
  "batch_size": 32
}
"""
OWN = """{
  "data": {
    "kind": "arrays",
    "path": "data.npz",
    "inputs": "x",
    "targets": "y"
  },
  "model": {
    "kind": "own",
    "name": "net:NetConfig",
    "fields": {
      "width": 32
    }
  },
  "optimizer": "adam",
  "epochs": 10
}
"""

STARTERS = {"mnist": MNIST, "csv": CSV, "images": IMAGES, "own": OWN}

"""Benchmarks: a module each, run by ``wgpu-nn bench``; ours and the peers' engines alternate in the same run."""

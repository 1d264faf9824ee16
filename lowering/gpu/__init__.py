"""Fusion groups in, kernels of ``block`` and ``thread`` loops and GPU programs out."""

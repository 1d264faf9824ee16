"""Facts about groups and kernels, never IR."""

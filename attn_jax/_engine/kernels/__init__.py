"""Implementations, one a file or folder: the reference, and kernels (see `dispatch.Kernel`)."""

"""Implementations, one a file: the reference, and kernels as `dispatch.Kernel` describes them."""

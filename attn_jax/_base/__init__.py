"""Checks, numerics, vmapped axes, tables and the like, which all layers above use."""

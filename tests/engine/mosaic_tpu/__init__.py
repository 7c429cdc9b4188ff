"""Tests of the fused TPU kernel, which runs interpreted on a CPU."""

"""Numba kernels (floor L0): they see arrays and loop; workspaces are passed in, nothing is decided here."""

"""Learned solvers, and PETRA, the engine that trains them."""

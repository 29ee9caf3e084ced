"""The runner on compiled kernels, and how they are built."""

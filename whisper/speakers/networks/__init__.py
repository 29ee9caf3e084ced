"""The networks that tell speakers apart, in PyTorch and for the compiled kernels, and their weights."""

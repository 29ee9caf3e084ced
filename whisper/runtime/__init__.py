"""Two ways to run the same weights: compiled kernels, or PyTorch with static caches."""

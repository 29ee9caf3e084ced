"""The runner on PyTorch alone, for CUDA and for a CPU without kernels."""

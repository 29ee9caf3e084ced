"""The tests. This runs before anything is imported that computes."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # threads wait for each other busily
    os.environ.setdefault("OMP_NUM_THREADS", "1")

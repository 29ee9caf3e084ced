"""``python -m whisper.runtime.native``: compiles the kernels in this folder."""

import sys

from .kernels import main

sys.exit(main())

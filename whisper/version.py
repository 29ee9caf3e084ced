"""The two versions: of the interface that we implement, and of this package."""

__version__ = "20250625"  # the openai-whisper release whose interface this is; programs compare it as text
__release__ = "0.1.0"  # this package's own version

"""The models of CTranslate2, which faster-whisper runs: read and written."""

"""The HTTP server: OpenAI's audio API on models of this machine; needs the extra ``serve``."""

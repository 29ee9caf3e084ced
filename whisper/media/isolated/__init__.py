"""Decoding in processes of its own, under limits: for files from people who are not trusted."""

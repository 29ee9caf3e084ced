"""Copies of the published models that lie on this machine: in packages, and in the folders of other programs."""

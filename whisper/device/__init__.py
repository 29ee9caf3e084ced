"""What this machine can compute, and in which precision."""

"""Text held against speech: what is missing, what is a hallucination, what is doubtful."""

"""Sound as the model and the voice activity detector take it."""

"""What is known of a network without its weights, and without torch."""

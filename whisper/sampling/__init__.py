"""From logits to the tokens of one window: search, rules, fallbacks."""

"""The Wyoming protocol, by which Home Assistant transcribes what is said to it, on a port of its own."""

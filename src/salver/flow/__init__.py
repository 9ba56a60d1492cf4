"""Who goes next, who waits, who is refused: pure decisions on plain data."""

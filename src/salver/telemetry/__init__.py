"""Events, metrics and evidence."""

"""The process around an engine: socket server, step thread, supervisor, probes."""

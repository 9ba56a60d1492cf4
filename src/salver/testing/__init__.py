"""The fakes that tests, docs and users need."""

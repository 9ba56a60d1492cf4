"""The load generator: a mix's schedule over HTTP, and what came of it."""

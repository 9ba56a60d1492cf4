"""The model runners: where a plan meets arithmetic."""

"""Where events leave for other systems; the only place that imports metric libraries."""

"""Many processes: Ray clusters and jobs, and ranks that train together."""

"""AutoNAT: searches for static strategies and for how masks are drawn in training."""

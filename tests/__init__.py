"""A package, so that processes which tests start find these and not another distribution's `tests`."""

"""Pages that need nothing else: HTML in one file, with style, script, data and images inside."""

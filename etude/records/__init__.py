"""Records: what happened, as files."""

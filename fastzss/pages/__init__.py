"""Pages: the report of a demo or an evaluation, and the charts in it."""

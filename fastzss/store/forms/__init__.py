"""How the shards of a features layer lie on disk; `commits.FORMS` lists them."""

"""Object code and plain data about it in, callables on numpy arrays out; see README.md."""

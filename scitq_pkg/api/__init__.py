"""The HTTP API: one file a noun, each a list of routes: authenticate, validate, call the store."""

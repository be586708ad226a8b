"""For biologists: what the public archives and one's own folders hold, as samples and their runs."""

"""Attack specifications, the sceptic's protocol, sanity checks, and the worst case over attacks."""

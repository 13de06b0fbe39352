"""Sources of records: the official files, and a generated sample in their layout."""

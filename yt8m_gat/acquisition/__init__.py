"""Where records come from: the official files, and a generated sample in their layout."""

"""One pass over the data with metrics, clean or attacked, and the record of its rows."""

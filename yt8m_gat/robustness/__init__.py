"""Which attacks are run, what makes their figures believable, and the worst of several."""

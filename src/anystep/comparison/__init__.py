"""Every method on your data at equal compute: the trials, how they run, and their results."""

"""Every method on one's own data at equal compute: what is compared, the runs of it, and what came of them."""

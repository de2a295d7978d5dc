"""What distances between sets are measured on, one feature space a file."""

"""What every room may use and nobody owns: errors, files, checks of fields, randomness, devices."""

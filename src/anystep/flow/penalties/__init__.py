"""How far off an answer is: penalties of a regression, one a file."""

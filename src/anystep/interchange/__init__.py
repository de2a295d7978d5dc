"""Trained networks in and out: run directories, and other people's formats."""

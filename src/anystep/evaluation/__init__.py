"""How good the samples are: features, metrics, and the protocol without which no score can be compared."""

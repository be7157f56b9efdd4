"""What the programs of a pair are, found out from one trace, and every way of running them that follows from it."""

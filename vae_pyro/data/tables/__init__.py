"""Tables whose columns are of different kinds: their schema, their numbers, and the distribution of a row."""

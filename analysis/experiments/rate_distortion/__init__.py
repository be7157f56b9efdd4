"""Rate and distortion of fits that differ in beta, with the bounds on them."""

"""Models whose log p(x) and posterior are known, their exact guides, and guides that are wrong in known ways."""

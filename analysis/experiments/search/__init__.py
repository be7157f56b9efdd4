"""Analysis of a search over settings: optimism of its best trial, importance of the settings."""

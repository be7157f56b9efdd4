"""Quality of imputation."""

"""What the assistant says about goods that were found: nothing that the database does not say."""

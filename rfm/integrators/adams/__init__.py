"""Adams's methods."""

"""What is done to a VM's storage, and what must come of it."""

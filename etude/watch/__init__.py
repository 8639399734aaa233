"""What is seen of a run and its machine while it goes on."""

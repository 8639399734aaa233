"""What people read of a run; made from the run folder only."""

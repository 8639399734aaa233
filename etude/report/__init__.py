"""Reports, cards, tables and charts of runs; made from the run folder only."""

"""Models of runs in other forms, of fewer bits or for other programs: made, checked and written."""
